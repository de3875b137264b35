//! `ExportMetricsServiceRequest`: only how much there is of it, for the answer that refuses it.

use super::check;
use super::common::{Messages, Section};
use super::wire::{Malformed, Reader, len};

/// How many data points an `ExportMetricsServiceRequest` holds.
///
/// # Errors
///
/// [`Malformed`] says where the bytes are no request.
pub fn metric_points(request: &[u8]) -> Result<u64, Malformed> {
    check::request(request, check::metrics)?;
    let resources = Messages::of(request, 1).map(Section::read);
    let scopes = resources.flat_map(|resource| resource.elements()).map(Section::read);
    Ok(scopes.flat_map(|scope| scope.elements()).map(points).sum())
}

/// The data points of one `Metric`: those of the kind of data that was set last, as `oneof` has it.
fn points(metric: &[u8]) -> u64 {
    let mut reader = Reader::new(metric);
    let mut kind = 0;
    let mut count = 0;
    while let Ok(key) = reader.key() {
        if [len(5), len(7), len(9), len(10), len(11)].contains(&key) {
            let points = Messages::of(reader.bytes().unwrap_or_default(), 1).count() as u64;
            count = if key == kind { count + points } else { points };
            kind = key;
        } else if reader.pass(key).is_none() {
            break;
        }
    }
    count
}
