//! SLOs of a benchmark, as OpenSLO.

use std::fmt::Write as _;
use std::path::Path;

/// Documents in a file.
const DOCUMENTS: usize = 500;

/// Writes `slo-0`, `slo-1`... of the service `load` into a folder. Each counts successes among the calls of its condition.
pub(crate) fn write(
    folder: &Path,
    count: usize,
    target: f64,
    annotations: impl Fn(usize) -> &'static str,
    total: impl Fn(usize) -> String,
) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    let source = |condition: &str| format!("{{metricSource: {{type: toolgauge, spec: {{where: \"{condition}\"}}}}}}");
    let numbers: Vec<usize> = (0..count).collect();
    for (file, numbers) in numbers.chunks(DOCUMENTS).enumerate() {
        let mut text = String::new();
        for number in numbers {
            write!(
                text,
                "---\napiVersion: openslo/v1\nkind: SLO\nmetadata: {{name: slo-{number}, annotations: {{{}}}}}\nspec:\n  service: \
                 load\n  indicator:\n    metadata: {{name: sli-{number}}}\n    spec:\n      ratioMetric:\n        good: {}\n        total: {}\n  \
                 timeWindow: [{{duration: 30d, isRolling: true}}]\n  budgetingMethod: Occurrences\n  objectives: [{{target: {target}}}]\n",
                annotations(*number),
                source("outcome = 'ok'"),
                source(&total(*number)),
            )?;
        }
        std::fs::write(folder.join(format!("{file}.yaml")), text)?;
    }
    Ok(())
}
