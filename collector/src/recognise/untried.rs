//! Rules that no capture tests are listed as such.

use std::collections::BTreeSet;

use prost::Message as _;

use super::arrangements::{Export, captures, exports};
use super::{Conventions, RecogniseSettings, Recogniser, Verdict};

const DOCUMENT: &str = include_str!("../../../docs/conventions.md");
const HEADING: &str = "## Rules without a capture";

/// Scenario: every record of every capture. Guarantees: the rules that say nothing of any of them are those that the document lists.
#[test]
fn rules_that_no_capture_uses_are_listed_in_the_document() {
    let recogniser = Recogniser::new(Conventions::built_in().unwrap(), RecogniseSettings::default()).unwrap();
    let mut untried: BTreeSet<String> =
        recogniser.conventions.rules.iter().map(|rule| format!("{} / {}", rule.convention, rule.name)).collect();
    for export in captures().iter().flat_map(|folder| exports(folder)) {
        let explained = match export {
            Export::Traces(request) => recogniser.explain_traces(&request.encode_to_vec()),
            Export::Logs(request) => recogniser.explain_logs(&request.encode_to_vec()),
        };
        for explanation in explained.unwrap() {
            if let Verdict::Recognised { rule, .. } | Verdict::NoCall(rule) = explanation.verdict {
                untried.remove(&rule.to_string());
            }
        }
    }
    let (_, section) = DOCUMENT.split_once(HEADING).expect("the document lists them");
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let listed: BTreeSet<String> =
        section.split('`').skip(1).step_by(2).filter(|words| words.contains(" / ")).map(str::to_owned).collect();
    assert_eq!(untried, listed);
}
