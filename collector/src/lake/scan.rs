//! The committed rows of a table, as DataFusion reads them.
//!
//! Files that by their date and their statistics have none of the rows sought are left out when a statement is planned. What their
//! footers say is kept in the session's cache, so that they are read once and not by every statement.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::{ObjectMeta, ObjectStore};
use toolgauge_proto::table::Table;

use super::compact::file_schema;
use super::files::{Files, LakeFile};
use super::names::in_table;

/// A name of its own keeps the tables apart from the machine's files: a query session that knows this store knows nothing else of
/// the disk.
const STORE: &str = "toolgauge-lake://tables";

/// See the module.
#[derive(Debug)]
pub(super) struct CommittedRows {
    pub(super) table: Table,
    /// Of the lake's folder.
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) files: Files,
}

#[async_trait]
impl TableProvider for CommittedRows {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let files = self.sought(session, filters)?;
        if files.is_empty() {
            let schema = projection.map_or(Ok(Arc::clone(&schema)), |columns| schema.project(columns).map(Arc::new))?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        // Here the date, which is not in the files, comes last.
        let last = schema.fields().len() - 1;
        let place = |column: usize| column.checked_sub(1).unwrap_or(last);
        let columns = projection
            .map_or_else(|| (0..=last).map(place).collect(), |columns| columns.iter().copied().map(place).collect());

        let runtime = session.runtime_env();
        let url = ObjectStoreUrl::parse(STORE)?;
        runtime.register_object_store(url.as_ref(), Arc::clone(&self.store));
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let options =
            TableParquetOptions { global: session.config_options().execution.parquet.clone(), ..Default::default() };
        let table_schema = TableSchema::builder(file_schema(self.table))
            .with_table_partition_cols(vec![Arc::clone(&schema.fields()[0])])
            .build();
        let source = ParquetSource::new(table_schema.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(
                Arc::clone(&self.store),
                footers,
            )));
        let mut statistics = Statistics::new_unknown(table_schema.table_schema());
        let rows: Option<u64> = files.iter().map(|file| file.rows()).sum();
        statistics.num_rows = rows.map_or(Precision::Absent, |rows| Precision::Exact(rows as usize));
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(self.spread(&files, session.config().target_partitions()))
            .with_statistics(statistics)
            .with_projection_indices(Some(columns))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl CommittedRows {
    /// Files that may have rows that are sought.
    fn sought(&self, session: &dyn Session, filters: &[Expr]) -> Result<Vec<&Arc<LakeFile>>> {
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(self.files.iter().collect()) };
        let schema = self.schema();
        let filter = session.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(&schema))?)?;
        let pruning = PruningPredicateBuilder::new().with_file_schema(schema).try_build(filter);
        // What cannot be decided by the ends of a file is decided by its rows.
        let Ok(sought) = pruning.and_then(|pruning| pruning.prune(&self.files)) else {
            return Ok(self.files.iter().collect());
        };
        Ok(self.files.iter().zip(sought).filter_map(|(file, sought)| sought.then_some(file)).collect())
    }

    /// In so many groups of about the same size, the newest first.
    fn spread(&self, files: &[&Arc<LakeFile>], groups: usize) -> Vec<FileGroup> {
        let mut spread = vec![(0, Vec::new()); groups.min(files.len()).max(1)];
        for file in files.iter().rev() {
            if let Some((bytes, group)) = spread.iter_mut().min_by_key(|(bytes, _)| *bytes) {
                *bytes += file.bytes;
                group.push(self.partitioned(file));
            }
        }
        spread.into_iter().map(|(_, files)| FileGroup::new(files)).collect()
    }

    fn partitioned(&self, file: &LakeFile) -> PartitionedFile {
        PartitionedFile::new_from_meta(ObjectMeta {
            location: in_table(self.table, &file.path),
            last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
            size: file.bytes,
            e_tag: None,
            version: None,
        })
        .with_partition_values(vec![ScalarValue::Date32(Some(file.date32))])
    }
}
