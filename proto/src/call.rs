//! The words of a row of `calls`: closed sets, each with the one spelling that the tables, SQL and the API share.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every word, in the order of the discriminants.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            /// The spellings, in the order of the discriminants.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The spelling in tables, SQL and the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                Self::WORDS[self as usize]
            }

            /// The word spelled so, if there is one.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(
    /// What a row is one attempt of.
    Kind {
        /// The execution of a tool.
        Tool => "tool",
        /// An inference of a model.
        Model => "model",
        /// One run of an agent.
        Agent => "agent",
    }
);

words!(
    /// Who saw the call, from the outside in.
    Layer {
        /// The agent that asked for it.
        Agent => "agent",
        /// The client that sent it to a server.
        Client => "client",
        /// The server that carried it out.
        Server => "server",
    }
);

words!(
    /// The OTLP signal that brought the row.
    Signal {
        /// A span.
        Span => "span",
        /// A log record.
        Log => "log",
    }
);

words!(
    /// How an attempt ended.
    Outcome {
        /// It did what it was asked.
        Ok => "ok",
        /// It did not.
        Error => "error",
    }
);

words!(
    /// Why an attempt failed.
    ErrorClass {
        /// It did not fail.
        None => "none",
        /// The network or the peer was briefly away.
        Transient => "transient",
        /// It took longer than allowed.
        Timeout => "timeout",
        /// The peer asked to slow down.
        RateLimited => "rate_limited",
        /// A paid-for amount is used up.
        QuotaExceeded => "quota_exceeded",
        /// The arguments were wrong.
        InvalidInput => "invalid_input",
        /// The result was wrong.
        InvalidOutput => "invalid_output",
        /// No or insufficient credentials (HTTP 401, 403).
        Unauthorized => "unauthorized",
        /// A policy or a person said no.
        PolicyDenied => "policy_denied",
        /// The thing asked for does not exist.
        NotFound => "not_found",
        /// The tool ran and reported a failure of its own.
        Semantic => "semantic",
        /// The peer failed.
        Server => "server",
        /// A circuit breaker refused.
        CircuitOpen => "circuit_open",
        /// The caller gave up.
        Cancelled => "cancelled",
        /// It failed, and nothing says why.
        Unknown => "unknown",
    }
);

words!(
    /// Where `cost_usd` comes from.
    CostSource {
        /// The producer said so.
        Reported => "reported",
        /// Computed from the price book.
        PriceBook => "price_book",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        assert!(ErrorClass::ALL.iter().all(|class| ErrorClass::from_word(class.as_str()) == Some(*class)));
        assert_eq!(Kind::from_word("Tool"), None);
    }
}
