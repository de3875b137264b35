//! The fleet that the generator plays: agents, models, tools and their servers, and what goes wrong with them.

use std::time::Duration;

use super::dice::CERTAIN_PPM;

/// Where tools run.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    /// The service that reports for it, if it is an MCP server with spans of its own.
    pub(crate) service: Option<&'static str>,
}

pub(crate) const SERVERS: [Server; 3] = [
    Server { name: "docs.internal", service: Some("docs-server") },
    Server { name: "crm.internal", service: None },
    Server { name: "payments.internal", service: None },
];

/// A tool, and how well it does.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// Place in [`SERVERS`].
    pub(crate) server: usize,
    pub(crate) median_us: u64,
    /// Failures in a million attempts.
    pub(crate) failures_ppm: u32,
    /// What one attempt costs, in billionths of a dollar; half to three halves of it are asked.
    pub(crate) cost_nano_usd: Option<u64>,
    /// How often it is chosen, compared with the others.
    pub(crate) weight: u64,
}

const fn tool(name: &'static str, server: usize, median_us: u64, failures_ppm: u32, cost: u64, weight: u64) -> Tool {
    let cost_nano_usd = if cost == 0 { None } else { Some(cost) };
    Tool { name, server, median_us, failures_ppm, cost_nano_usd, weight }
}

/// The tool that broke once in the history, and breaks in the demo.
pub(crate) const FRAGILE: usize = 0;

pub(crate) const TOOLS: [Tool; 12] = [
    tool("search_docs", 0, 180_000, 150, 40_000, 30),
    tool("read_page", 0, 90_000, 2_000, 0, 18),
    tool("vector_search", 0, 320_000, 4_000, 120_500, 9),
    tool("summarize_page", 0, 1_400_000, 9_000, 1_250_333, 5),
    tool("lookup_customer", 1, 35_000, 500, 0, 24),
    tool("list_orders", 1, 60_000, 900, 0, 14),
    tool("create_ticket", 1, 110_000, 3_000, 0, 8),
    tool("update_ticket", 1, 95_000, 2_500, 0, 7),
    tool("send_email", 1, 240_000, 6_000, 850_000, 6),
    tool("get_quote", 2, 420_000, 12_000, 2_000_000, 4),
    tool("charge_card", 2, 700_000, 15_000, 9_000_017, 3),
    tool("refund_order", 2, 820_000, 30_000, 4_500_000, 1),
];

/// A language model and its prices, in billionths of a dollar per token, where it says what it costs.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) median_us: u64,
    pub(crate) failures_ppm: u32,
    pub(crate) input_nano_usd: u64,
    pub(crate) output_nano_usd: u64,
}

pub(crate) const MODELS: [Model; 2] = [
    Model {
        name: "large-1",
        provider: "example",
        median_us: 1_900_000,
        failures_ppm: 2_500,
        input_nano_usd: 3_000,
        output_nano_usd: 15_000,
    },
    Model {
        name: "small-1",
        provider: "example",
        median_us: 600_000,
        failures_ppm: 1_200,
        input_nano_usd: 250,
        output_nano_usd: 2_000,
    },
];

/// An agent. Its service has its place among [`SERVICES`].
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) name: &'static str,
    /// Place in [`MODELS`].
    pub(crate) model: usize,
    /// Whose it is, if it says so.
    pub(crate) team: Option<&'static str>,
    /// What it writes into its tracestate, and for how many calls each of its calls stands, in millionths, where fleets are sampled.
    pub(crate) sampled: Option<(&'static str, u64)>,
    /// How often it is asked, compared with the others.
    pub(crate) weight: u64,
}

pub(crate) const AGENTS: [Agent; 3] = [
    Agent { name: "support", model: 1, team: Some("care"), sampled: None, weight: 6 },
    Agent { name: "research", model: 0, team: Some("knowledge"), sampled: Some(("ot=th:c", 4_000_000)), weight: 3 },
    // A third of its traces is left out.
    Agent { name: "billing", model: 1, team: None, sampled: Some(("ot=th:55555555555555", 1_500_000)), weight: 1 },
];

/// The services that export: those of the agents, then those of the servers.
pub(crate) const SERVICES: [&str; 4] = ["support-agent", "research-agent", "billing-agent", "docs-server"];

/// A way to fail: how the producer names it, and the class that it is recognised as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) error_type: &'static str,
    pub(crate) class: &'static str,
    pub(crate) message: &'static str,
    /// Whether agents try again.
    pub(crate) retried: bool,
}

const fn failure(error_type: &'static str, class: &'static str, message: &'static str, retried: bool) -> Failure {
    Failure { error_type, class, message, retried }
}

pub(crate) const FAILURES: [Failure; 6] = [
    failure("TimeoutError", "timeout", "no answer within 2000 ms", true),
    failure("ConnectionError", "transient", "upstream closed the connection", true),
    failure("RateLimitError", "rate_limited", "too many requests", true),
    failure("InternalServerError", "server", "unexpected state", true),
    failure("ValueError", "invalid_input", "order number must have 8 digits", false),
    failure("PermissionError", "unauthorized", "this key may not read this", false),
];

/// A tool that is broken for a while, by the time at which its calls begin.
#[derive(Debug, Clone)]
pub(crate) struct Break {
    /// Place in [`TOOLS`].
    pub(crate) tool: usize,
    pub(crate) from_ns: u64,
    /// Exclusive.
    pub(crate) to_ns: u64,
    /// Place in [`FAILURES`].
    pub(crate) failure: usize,
    /// Calls that fail, in a million; their retries fail nearly always.
    pub(crate) share_ppm: u32,
}

/// A break as it is asked for on the command line: `tool=NAME,for=5m[,after=1m][,class=timeout][,share=50]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GameDay {
    tool: usize,
    failure: usize,
    after: Duration,
    lasting: Duration,
    share_ppm: u32,
}

/// What is wrong with a game day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongGameDay(String);

impl std::str::FromStr for GameDay {
    type Err = WrongGameDay;

    fn from_str(text: &str) -> Result<Self, WrongGameDay> {
        let wrong = |text: String| Err(WrongGameDay(text));
        let duration = |value: &str| {
            humantime::parse_duration(value)
                .map_err(|error| WrongGameDay(format!("\"{value}\" is no duration: {error}")))
        };
        let (mut tool, mut lasting) = (None, None);
        let (mut failure, mut after, mut share_ppm) = (0, Duration::ZERO, CERTAIN_PPM);
        for part in text.split(',') {
            let Some((key, value)) = part.split_once('=') else {
                return wrong(format!(
                    "\"{part}\" must be KEY=VALUE (write like tool=search_docs,for=5m,class=timeout)"
                ));
            };
            match key.trim() {
                "tool" => match TOOLS.iter().position(|tool| tool.name == value) {
                    Some(at) => tool = Some(at),
                    None => {
                        return wrong(format!(
                            "no tool is called \"{value}\" (there are {})",
                            names(TOOLS.iter().map(|tool| tool.name))
                        ));
                    }
                },
                "class" => match FAILURES.iter().position(|failure| failure.class == value) {
                    Some(at) => failure = at,
                    None => {
                        let classes = names(FAILURES.iter().map(|failure| failure.class));
                        return wrong(format!("no failure has the class \"{value}\" (there are {classes})"));
                    }
                },
                "for" => lasting = Some(duration(value)?),
                "after" => after = duration(value)?,
                "share" => match value.parse::<u32>() {
                    Ok(percent @ 1..=100) => share_ppm = percent * (CERTAIN_PPM / 100),
                    _ => return wrong(format!("share must be between 1 and 100 percent, got \"{value}\"")),
                },
                other => return wrong(format!("\"{other}\" is unknown (there are tool, for, after, class, share)")),
            }
        }
        match (tool, lasting) {
            (Some(tool), Some(lasting)) => Ok(Self { tool, failure, after, lasting, share_ppm }),
            _ => wrong("tool and for are needed (write like tool=search_docs,for=5m)".to_owned()),
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

impl GameDay {
    /// The break, if the load begins at this time.
    pub(crate) fn starting(&self, origin_ns: u64) -> Break {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let from_ns = origin_ns.saturating_add(ns(self.after));
        Break {
            tool: self.tool,
            from_ns,
            to_ns: from_ns.saturating_add(ns(self.lasting)),
            failure: self.failure,
            share_ppm: self.share_ppm,
        }
    }
}

/// How busy an hour of the day (UTC) is, in percent of the average.
const HOURS: [u64; 24] =
    [35, 28, 24, 22, 25, 35, 55, 85, 120, 150, 165, 160, 145, 155, 170, 175, 165, 150, 130, 110, 95, 80, 65, 56];
/// How busy a day of the week is, from Monday, in percent of the average.
const DAYS: [u64; 7] = [115, 120, 122, 118, 110, 60, 55];

/// How busy it is at this time, in ten thousandths of the average.
pub(crate) fn busy(at_ns: u64) -> u64 {
    const HOUR_NS: u64 = 3_600_000_000_000;
    let hours = at_ns / HOUR_NS;
    // 1970-01-01 was a Thursday.
    HOURS[(hours % 24) as usize] * DAYS[((hours / 24 + 3) % 7) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn game_days_are_read_and_faults_say_what_may_stand_there() {
        let read = |text: &str| text.parse::<GameDay>().map_err(|wrong| wrong.to_string());
        let day = read("tool=charge_card,for=5m,class=rate_limited,after=30s,share=40").expect("reads");
        let broken = day.starting(1_000_000_000);
        assert_eq!((TOOLS[broken.tool].name, FAILURES[broken.failure].class), ("charge_card", "rate_limited"));
        assert_eq!((broken.from_ns, broken.to_ns), (31_000_000_000, 331_000_000_000));
        assert_eq!(broken.share_ppm, 400_000);
        assert_eq!(read("tool=search_docs,for=1m").expect("reads").starting(0).share_ppm, CERTAIN_PPM);
        for (text, says) in [
            ("tool=search,for=5m", "no tool is called \"search\" (there are search_docs, "),
            ("tool=search_docs", "tool and for are needed"),
            ("tool=search_docs,for=soon", "\"soon\" is no duration"),
            ("tool=search_docs,for=1m,class=bad", "there are timeout, "),
            ("tool=search_docs,for=1m,share=0", "between 1 and 100"),
            ("search_docs", "must be KEY=VALUE"),
            ("tool=search_docs,for=1m,x=1", "\"x\" is unknown"),
        ] {
            assert!(read(text).expect_err(text).contains(says), "{text}: {:?}", read(text));
        }
    }

    #[test]
    fn days_and_hours_are_as_busy_as_the_average_says() {
        assert_eq!((HOURS.iter().sum::<u64>(), DAYS.iter().sum::<u64>()), (2400, 700));
        // 2026-11-21 was a Saturday.
        assert_eq!(busy(1_795_255_200_000_000_000), 165 * 60);
    }

    #[test]
    fn every_service_and_place_exists() {
        assert!(TOOLS.iter().all(|tool| tool.server < SERVERS.len()));
        for agent in &AGENTS {
            assert!(SERVICES.contains(&&*format!("{}-agent", agent.name)) && agent.model < MODELS.len());
        }
        assert!(SERVERS.iter().filter_map(|server| server.service).all(|service| SERVICES.contains(&service)));
    }
}
