//! The price book in force: replaced by whoever reads the files, taken by the fold.

use std::sync::Arc;

use arc_swap::ArcSwap;
use toolgauge_analytics::price::PriceBook;

/// See the module. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Prices(Arc<ArcSwap<PriceBook>>);

impl Prices {
    /// This book is in force.
    #[must_use]
    pub fn new(book: PriceBook) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(book)))
    }

    /// From now on another one is. Rows that are not committed are priced anew.
    pub fn replace(&self, book: PriceBook) {
        self.0.store(Arc::new(book));
    }

    /// The book in force.
    #[must_use]
    pub fn get(&self) -> Arc<PriceBook> {
        self.0.load_full()
    }
}
