//! Figures beside what they are to be. A benchmark that misses one ends with a code other than 0.

use std::error::Error;

/// What was measured, and what was missed.
#[derive(Debug, Default)]
pub(crate) struct Goals {
    missed: Vec<&'static str>,
}

impl Goals {
    /// Prints a figure that must not be above its goal.
    pub(crate) fn at_most(&mut self, what: &'static str, found: f64, goal: f64) {
        self.judge(what, found, &format!("at most {goal}"), found <= goal);
    }

    /// Prints a figure that must not be below its goal.
    pub(crate) fn at_least(&mut self, what: &'static str, found: f64, goal: f64) {
        self.judge(what, found, &format!("at least {goal}"), found >= goal);
    }

    fn judge(&mut self, what: &'static str, found: f64, goal: &str, holds: bool) {
        println!("  {what:<62} {found:>10.2}  {goal:<15} {}", if holds { "ok" } else { "MISSED" });
        if !holds {
            self.missed.push(what);
        }
    }

    /// # Errors
    /// If a goal was missed.
    pub(crate) fn finish(self) -> Result<(), Box<dyn Error>> {
        match self.missed.as_slice() {
            [] => Ok(()),
            missed => Err(format!("missed: {}", missed.join("; ")).into()),
        }
    }
}
