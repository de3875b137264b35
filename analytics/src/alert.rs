//! When an alert fires, and when it ends: one state machine for each SLO, group and tier.
//!
//! [`step`] is a function of the state, what was observed, and the time of the evaluation.
//!
//! # Guarantees
//! * A state changes only by the rules below, and at most once an evaluation; every change comes back as a [`Transition`].
//! * What an evaluation decides depends on its counts and on the state, not on how often or how regularly it was asked
//!   before. So missed rounds need no replay, and a state that is loaded after a restart goes on as if there had been none.
//! * That an alert no longer burns and is held by its keep-firing time, or burns again, is a change as well, from firing to firing: whoever
//!   writes all changes down can go on from the last one.
//! * An alert keeps its start time until it ends, and ends no earlier than it starts, whatever the clock does.
//!
//! # Rules
//!
//! | evaluation, first match | if | then |
//! |---|---|---|
//! | `learning` | the history is not counted yet | nothing changes |
//! | `stale` | the watermark is over [`STALE_AFTER_US`] old, or less than [`COVERED_MIN_PERCENT`] % of the short window is covered, or all that fed the long window has fallen silent | nothing changes |
//! | `idle` | the short window has no events | nothing fires; pending ends; firing ends as `no_traffic` once the long window has no events either |
//! | `ok` | | burning fires (or pends, for the time asked); not burning ends |
//!
//! A firing alert that falls idle thus holds until its last event has left the long window: at most one long window. An
//! alert that ended stays `resolved` for [`RESOLVED_FOR_US`], so that whoever delivers it goes on saying so.

use toolgauge_proto::time::UnixMicros;

/// A watermark older than this, in microseconds, makes an evaluation stale.
pub const STALE_AFTER_US: i64 = 60_000_000;
/// Less than this share of the minutes of the short window covered makes an evaluation stale.
pub const COVERED_MIN_PERCENT: u64 = 90;
/// An alert that ended is `resolved` for so long, in microseconds, then `inactive`. Prometheus keeps it as long.
pub const RESOLVED_FOR_US: i64 = 15 * 60_000_000;

/// What an evaluation could tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evaluation {
    /// The counts are what happened.
    Ok,
    /// Telemetry is missing, so that the counts cannot be trusted.
    Stale,
    /// There is telemetry, and no calls.
    Idle,
    /// The history is not counted yet.
    Learning,
}

impl Evaluation {
    /// Its word in tables and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Stale => "stale",
            Self::Idle => "idle",
            Self::Learning => "learning",
        }
    }
}

/// What is known of the telemetry behind an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telemetry {
    /// Whether the history of the SLO is counted.
    pub history: History,
    /// Time of the evaluation less the watermark, in microseconds.
    pub watermark_age_us: i64,
    /// Minutes of the short window in which exports were accepted for long enough.
    pub covered_minutes: u64,
    /// Minutes of the short window that had ended.
    pub short_minutes: u64,
    /// Whether any service that fed the long window still sends.
    pub sources: Sources,
}

/// Whether the history of an SLO is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// It is.
    Counted,
    /// It is being read.
    Counting,
}

/// Whether the services that fed the long window still send anything at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// One of them does, or there was none.
    Alive,
    /// Each has sent nothing for longer than its heartbeat limit.
    Silent,
}

impl Telemetry {
    /// What the evaluation can tell, given the number of events in the short window.
    #[must_use]
    pub const fn evaluation(&self, short_total: u64) -> Evaluation {
        if matches!(self.history, History::Counting) {
            return Evaluation::Learning;
        }
        let uncovered = self.covered_minutes as u128 * 100 < self.short_minutes as u128 * COVERED_MIN_PERCENT as u128;
        if self.watermark_age_us > STALE_AFTER_US || uncovered || matches!(self.sources, Sources::Silent) {
            return Evaluation::Stale;
        }
        if short_total == 0 { Evaluation::Idle } else { Evaluation::Ok }
    }
}

/// What one evaluation saw of one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// What it could tell.
    pub evaluation: Evaluation,
    /// Whether both windows burn at the factor ([`crate::budget::Tier::burns`]).
    pub burns: bool,
    /// Events in the long window.
    pub long_total: u64,
}

/// How patient an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Patience {
    /// How long it has to burn before it fires, in microseconds.
    pub pending_us: i64,
    /// How long it goes on firing after it burnt last, in microseconds.
    pub keep_firing_us: i64,
}

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing is wrong.
    #[default]
    Inactive,
    /// It burns, but not for long enough.
    Pending {
        /// Since when.
        since: UnixMicros,
    },
    /// Somebody is called.
    Firing {
        /// Since when.
        starts_at: UnixMicros,
        /// Since when it no longer burns, if a keep-firing time holds it.
        clear_since: Option<UnixMicros>,
    },
    /// It fired, and ended.
    Resolved {
        /// When it began to fire.
        starts_at: UnixMicros,
        /// When it ended.
        ends_at: UnixMicros,
    },
}

impl State {
    /// Its word in tables and the API.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending { .. } => "pending",
            Self::Firing { .. } => "firing",
            Self::Resolved { .. } => "resolved",
        }
    }

    /// Whether somebody is called.
    #[must_use]
    pub const fn is_firing(&self) -> bool {
        matches!(self, Self::Firing { .. })
    }

    /// When it began to fire, if it does or did.
    #[must_use]
    pub const fn starts_at(&self) -> Option<UnixMicros> {
        match self {
            Self::Firing { starts_at, .. } | Self::Resolved { starts_at, .. } => Some(*starts_at),
            Self::Inactive | Self::Pending { .. } => None,
        }
    }

    /// When it ended, if it did.
    #[must_use]
    pub const fn ends_at(&self) -> Option<UnixMicros> {
        match self {
            Self::Resolved { ends_at, .. } => Some(*ends_at),
            _ => None,
        }
    }
}

/// Why a state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Both windows burn at the factor.
    Burning,
    /// They no longer do, and the keep-firing time begins: it goes on firing.
    Clear,
    /// They no longer do.
    Recovered,
    /// There were no calls for the whole long window.
    NoTraffic,
    /// It had been resolved for [`RESOLVED_FOR_US`].
    Expired,
}

impl Reason {
    /// Its word in tables and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Burning => "burning",
            Self::Clear => "clear",
            Self::Recovered => "recovered",
            Self::NoTraffic => "no_traffic",
            Self::Expired => "expired",
        }
    }
}

/// A change of state.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

impl Transition {
    /// Whether it goes on firing: only its keep-firing time has begun, or ended because it burns again.
    #[must_use]
    pub const fn keeps_firing(&self) -> bool {
        self.from.is_firing() && self.to.is_firing()
    }
}

/// The state after an evaluation at `now`, and the change if it is another one.
#[must_use]
pub fn step(
    state: State,
    observation: &Observation,
    patience: Patience,
    now: UnixMicros,
) -> (State, Option<Transition>) {
    let (to, reason) = match observation.evaluation {
        Evaluation::Learning | Evaluation::Stale => (state, None),
        Evaluation::Idle => idle(state, observation, now),
        Evaluation::Ok if observation.burns => burning(state, patience, now),
        Evaluation::Ok => clear(state, patience, now),
    };
    let expired = |ends_at: UnixMicros| now.0.saturating_sub(ends_at.0) >= RESOLVED_FOR_US;
    let (to, reason) = match to {
        State::Resolved { ends_at, .. } if to == state && expired(ends_at) => (State::Inactive, Some(Reason::Expired)),
        _ => (to, reason),
    };
    (to, reason.map(|reason| Transition { from: state, to, reason }))
}

type Step = (State, Option<Reason>);

fn burning(state: State, patience: Patience, now: UnixMicros) -> Step {
    let since = match state {
        State::Firing { starts_at, clear_since } => {
            return (State::Firing { starts_at, clear_since: None }, clear_since.map(|_| Reason::Burning));
        }
        // A clock that went back must not make it wait for longer than asked.
        State::Pending { since } => since.min(now),
        State::Inactive | State::Resolved { .. } => now,
    };
    if now.0.saturating_sub(since.0) >= patience.pending_us {
        return (State::Firing { starts_at: now, clear_since: None }, Some(Reason::Burning));
    }
    match state {
        State::Pending { .. } => (State::Pending { since }, None),
        _ => (State::Pending { since }, Some(Reason::Burning)),
    }
}

fn clear(state: State, patience: Patience, now: UnixMicros) -> Step {
    match state {
        State::Pending { .. } => (State::Inactive, Some(Reason::Recovered)),
        State::Firing { starts_at, clear_since } => {
            let clear = clear_since.unwrap_or(now).min(now);
            if now.0.saturating_sub(clear.0) >= patience.keep_firing_us {
                (ended(starts_at, now), Some(Reason::Recovered))
            } else {
                let begins = clear_since.is_none().then_some(Reason::Clear);
                (State::Firing { starts_at, clear_since: Some(clear) }, begins)
            }
        }
        State::Inactive | State::Resolved { .. } => (state, None),
    }
}

fn idle(state: State, observation: &Observation, now: UnixMicros) -> Step {
    match state {
        State::Pending { .. } => (State::Inactive, Some(Reason::NoTraffic)),
        State::Firing { starts_at, .. } if observation.long_total == 0 => {
            (ended(starts_at, now), Some(Reason::NoTraffic))
        }
        State::Inactive | State::Firing { .. } | State::Resolved { .. } => (state, None),
    }
}

fn ended(starts_at: UnixMicros, now: UnixMicros) -> State {
    State::Resolved { starts_at, ends_at: now.max(starts_at) }
}

#[cfg(test)]
mod tests;
