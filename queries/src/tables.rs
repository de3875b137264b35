//! The tables and views of one snapshot of the lake.
//!
//! # Guarantees
//! * Every [`Table`] is its committed rows and its live rows, each row once, all of one [`View`]: a statement sees one
//!   position of the log in every table that it reads. Live rows that are computed are computed when a statement scans
//!   the table.
//! * The views (`sql/views/*.sql`) are planned once, over tables without rows; a statement gets that plan with its own
//!   snapshot put in.
//! * Filters are passed to the committed table, which may skip files by them, and applied again to the union. A
//!   committed table that promises to apply a filter exactly cannot promise it for the live rows.
//!
//! # How it works
//! Live words are dictionaries. A scan reads only the columns asked for and casts words to text as batches are read,
//! so that both halves have the types of [`Table::schema`].
//!
//! The snapshot is let go with the statement's plan.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, Session as PlanningSession, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{TableType, ViewTable, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableScan};
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::lake::{LiveBatches, TableView, View};
use toolgauge_proto::table::Table;
use toolgauge_proto::time::UnixMicros;

use crate::engine::{Engine, Error, Settings};
use crate::{hex, latency};

/// The views, by name, with the statement of each.
pub const VIEWS: [(&str, &str); 5] = [
    ("tool_calls", include_str!("../sql/views/tool_calls.sql")),
    ("logical_calls", include_str!("../sql/views/logical_calls.sql")),
    ("model_calls", include_str!("../sql/views/model_calls.sql")),
    ("agent_runs", include_str!("../sql/views/agent_runs.sql")),
    ("sessions", include_str!("../sql/views/sessions.sql")),
];

/// What stands in a view for the watermark of its snapshot, in microseconds.
const WATERMARK: &str = "$watermark";

/// An engine that knows our functions.
///
/// # Errors
/// As [`Engine::new`].
pub fn engine(settings: Settings) -> std::result::Result<Engine, Error> {
    Engine::new(settings, |mut builder| {
        builder.scalar_functions().get_or_insert_default().extend([
            Arc::new(hex::hex()),
            Arc::new(latency::hdr_quantile()),
            Arc::new(latency::hdr_fraction_below()),
        ]);
        builder.aggregate_functions().get_or_insert_default().extend(latency::aggregates());
        builder.with_optimizer_rule(Arc::new(hex::CompareBytes))
    })
}

/// The planned views: what is the same for every snapshot.
#[derive(Debug, Clone)]
pub struct Catalog {
    views: Arc<[(&'static str, String, LogicalPlan)]>,
}

impl Catalog {
    /// Plans the views, with the settings of the engine in their statements.
    ///
    /// # Errors
    /// If one of them does not fit the tables.
    pub async fn new(engine: &Engine) -> std::result::Result<Self, Error> {
        let empty = |table: Table| -> Result<TableView> {
            let committed = MemTable::try_new(table.schema(), vec![Vec::new()])?;
            Ok(TableView { committed: Arc::new(committed), live: LiveBatches::new(Arc::new([])) })
        };
        let [calls, arrivals, quarantine, calls_1m, slo_1m, alerts, calls_1h] = Table::ALL.map(empty);
        let view = Arc::new(View {
            tables: [calls?, arrivals?, quarantine?, calls_1m?, slo_1m?, alerts?, calls_1h?],
            position: WalPosition(0),
            settled: WalPosition(0),
            committed: WalPosition(0),
            watermark: UnixMicros(0),
        });
        let bare: Arc<dyn SchemaProvider> = Self { views: Arc::new([]) }.schema(view);
        let epoch = chrono::DateTime::UNIX_EPOCH;
        let idle_us = engine.settings().session_idle.as_micros().to_string();
        let statements = VIEWS.map(|(name, sql)| (name, sql.replace("{session_idle_us}", &idle_us)));
        let plan = async move |session: crate::engine::Session| {
            let mut views = Vec::with_capacity(VIEWS.len());
            for (name, sql) in statements {
                let plan = session.plan(&sql, Vec::new()).await?;
                views.push((name, sql, plan));
            }
            Ok(views)
        };
        Ok(Self { views: engine.run(bare, epoch, plan).await?.into() })
    }

    /// The tables and views of one snapshot.
    #[must_use]
    pub fn schema(&self, view: Arc<View>) -> Arc<dyn SchemaProvider> {
        Arc::new(SnapshotSchema { view, catalog: self.clone() })
    }
}

#[derive(Debug)]
struct SnapshotSchema {
    view: Arc<View>,
    catalog: Catalog,
}

impl SnapshotSchema {
    fn snapshot(&self, name: &str) -> Option<SnapshotTable> {
        let table = Table::ALL.into_iter().find(|table| table.name() == name)?;
        Some(SnapshotTable { table, rows: self.view.table(table).clone() })
    }

    /// The view's plan over this snapshot.
    fn over_snapshot(&self, sql: &str, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let mut plan = plan.clone();
        if sql.contains(WATERMARK) {
            let watermark = ScalarValue::Int64(Some(self.view.watermark.0));
            plan = plan.with_param_values(vec![(&WATERMARK[1..], watermark)])?;
        }
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::TableScan(scan) => {
                let Some(table) = self.snapshot(scan.table_name.table()) else {
                    return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
                };
                let source = provider_as_source(Arc::new(table));
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
            }
            node => Ok(Transformed::no(node)),
        })?;
        Ok(plan.data)
    }
}

#[async_trait]
impl SchemaProvider for SnapshotSchema {
    fn table_names(&self) -> Vec<String> {
        let tables = Table::ALL.iter().map(|table| table.name());
        tables.chain(self.catalog.views.iter().map(|(name, ..)| *name)).map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if let Some(table) = self.snapshot(name) {
            return Ok(Some(Arc::new(table)));
        }
        let Some((_, sql, plan)) = self.catalog.views.iter().find(|(view, ..)| *view == name) else {
            return Ok(None);
        };
        let view = ViewTable::new(self.over_snapshot(sql, plan)?, Some(format!("CREATE VIEW {name} AS\n{sql}")));
        Ok(Some(Arc::new(view)))
    }

    fn table_exist(&self, name: &str) -> bool {
        Table::ALL.iter().any(|table| table.name() == name) || self.catalog.views.iter().any(|(view, ..)| *view == name)
    }
}

/// One table of one snapshot: its committed rows and its live rows.
#[derive(Debug)]
struct SnapshotTable {
    table: Table,
    rows: TableView,
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let committed = self.rows.committed.supports_filters_pushdown(filters)?;
        Ok(committed
            .into_iter()
            .map(|support| match support {
                TableProviderFilterPushDown::Exact => TableProviderFilterPushDown::Inexact,
                other => other,
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn PlanningSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let committed = self.rows.committed.scan(state, projection, filters, limit).await?;
        let live = self.rows.live.get()?;
        if live.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(committed);
        }
        let partitions = spread(&live, state.config().target_partitions());
        let live = live_scan(self.table, &partitions, projection.cloned())?;
        UnionExec::try_new(vec![committed, live])
    }
}

/// The batches in so many partitions of about the same number of rows.
fn spread(batches: &[RecordBatch], partitions: usize) -> Vec<Vec<RecordBatch>> {
    let mut spread = vec![(0, Vec::new()); partitions.min(batches.len()).max(1)];
    for batch in batches {
        if let Some((rows, partition)) = spread.iter_mut().min_by_key(|(rows, _)| *rows) {
            *rows += batch.num_rows();
            partition.push(batch.clone());
        }
    }
    spread.into_iter().map(|(_, partition)| partition).collect()
}

/// Reads the live rows, words as text.
fn live_scan(
    table: Table,
    partitions: &[Vec<RecordBatch>],
    projection: Option<Vec<usize>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let scan = MemorySourceConfig::try_new_exec(partitions, table.live_schema(), projection)?;
    let schema = scan.schema();
    if !schema.fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..))) {
        return Ok(scan);
    }
    let columns = schema.fields().iter().enumerate().map(|(index, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
        let expr = match field.data_type() {
            DataType::Dictionary(_, values) => Arc::new(CastExpr::new(column, values.as_ref().clone(), None)),
            _ => column,
        };
        ProjectionExpr { expr, alias: field.name().clone() }
    });
    Ok(Arc::new(ProjectionExec::try_new(columns, scan)?))
}
