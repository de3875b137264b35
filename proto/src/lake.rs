//! How readers see the lake: one snapshot of every table at one position of the log.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion_session::TableProvider;

use crate::api::IngestStatus;
use crate::id::WalPosition;
use crate::table::Table;
use crate::time::UnixMicros;

/// One table in a [`View`]. Its rows are the committed ones and the live ones, each row in exactly one of the two.
#[derive(Debug, Clone)]
pub struct TableView {
    /// The committed rows, in [`Table::schema`].
    pub committed: Arc<dyn TableProvider>,
    /// The rows that are not committed yet, in [`Table::live_schema`].
    pub live: Arc<[RecordBatch]>,
}

/// One consistent snapshot of every table. It never changes; a newer one replaces it.
#[derive(Debug, Clone)]
pub struct View {
    /// By [`Table`], in the order of [`Table::ALL`].
    pub tables: [TableView; Table::ALL.len()],
    /// Every row of every export up to here is in the view, and no row of a later one.
    pub position: WalPosition,
    /// The rows up to here are decided for good.
    pub settled: WalPosition,
    /// Receive time up to which every acknowledged row is in the view.
    pub watermark: UnixMicros,
}

impl View {
    /// One table of the snapshot.
    #[must_use]
    pub fn table(&self, table: Table) -> &TableView {
        &self.tables[table as usize]
    }
}

/// The tables, as readers see them.
pub trait Lake: Send + Sync + Debug {
    /// The newest snapshot. A row is in it within a second of its acknowledgement. Cheap.
    fn view(&self) -> Arc<View>;

    /// How taking in goes: numbers for `/api/v1/status` and `/readyz`.
    fn status(&self) -> IngestStatus;
}
