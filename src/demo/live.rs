//! Traffic of the present: runs begin as time goes on, and are sent when they end.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::DemoError;
use crate::loadgen::fleet::{Break, FRAGILE};
use crate::loadgen::ledger::Ledger;
use crate::loadgen::send::Sender;
use crate::loadgen::traffic::{Batch, Run, Traffic};

/// A run every 400 ms: some ten calls a second.
const RUN_INTERVAL_NS: u64 = 400_000_000;

/// See the module.
pub(crate) struct Live {
    traffic: Traffic,
    sender: Sender,
    ledger: Ledger,
    next_ns: u64,
    /// By their end and number.
    under_way: BTreeMap<(u64, Reverse<u64>), Run>,
    begun: u64,
}

impl Live {
    pub(crate) fn new(traffic: Traffic, ledger: Ledger, sender: Sender, now_ns: u64) -> Self {
        Self { traffic, sender, ledger, next_ns: now_ns, under_way: BTreeMap::new(), begun: 0 }
    }

    /// What was acknowledged so far, the history included.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// From now on, every call of the fragile tool fails.
    pub(crate) fn break_tool(&mut self, now_ns: u64) {
        let broken = Break { tool: FRAGILE, from_ns: now_ns, to_ns: u64::MAX, failure: 0, share_ppm: 1_000_000 };
        self.traffic.breaks().push(broken);
    }

    /// From now on, it does as it always did.
    pub(crate) fn heal_tool(&mut self, now_ns: u64) {
        for broken in self.traffic.breaks() {
            broken.to_ns = broken.to_ns.min(now_ns);
        }
    }

    /// Begins what is due, and sends what has ended.
    pub(crate) async fn go_on(&mut self, now_ns: u64) -> Result<(), DemoError> {
        while self.next_ns <= now_ns {
            let run = self.traffic.run(self.next_ns);
            self.begun += 1;
            self.under_way.insert((run.end_ns, Reverse(self.begun)), run);
            self.next_ns += RUN_INTERVAL_NS;
        }
        self.send_until(now_ns).await
    }

    /// Begins nothing more, and sends what is under way: others of its sessions are counted already.
    pub(crate) async fn finish(&mut self) -> Result<(), DemoError> {
        self.send_until(u64::MAX).await
    }

    /// Sends what ends until then.
    async fn send_until(&mut self, until_ns: u64) -> Result<(), DemoError> {
        let mut batch = Batch::default();
        while let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= until_ns) {
            batch.push(first.remove());
        }
        if let Some(export) = batch.take() {
            self.sender.deliver(export.body).await?;
            self.ledger.add_all(&export.facts);
        }
        Ok(())
    }
}
