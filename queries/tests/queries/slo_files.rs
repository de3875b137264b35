//! OpenSLO files: what is taken, what is refused and how it is said, and what stays in force.

use tempfile::TempDir;
use toolgauge_proto::call::Layer;
use toolgauge_queries::engine::{Engine, Settings};
use toolgauge_queries::slo::definition::{Judged, Mode};
use toolgauge_queries::slo::fault::Severity;
use toolgauge_queries::slo::set::{SloSet, Sources};
use toolgauge_queries::tables;

/// An SLO that is taken; line 20 is the target.
pub(crate) const AVAILABILITY: &str = r#"apiVersion: openslo/v1
kind: SLO
metadata:
  name: search-availability
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}
        total:
          metricSource: {type: toolgauge, spec: {where: kind = 'tool' AND tool_name = 'search'}}
  timeWindow:
    - duration: 30d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - target: 0.999
"#;

struct Folder {
    folder: TempDir,
    engine: Engine,
    sources: Sources,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new(vec![folder.path().to_owned()]);
        Self { folder, engine: tables::engine(Settings::default()).unwrap(), sources }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&mut self) -> SloSet {
        // A change is taken when it was seen twice.
        let first = self.sources.read(&self.engine);
        self.sources.read(&self.engine).or(first).expect("something has changed")
    }

    fn faults(&self, set: &SloSet) -> Vec<String> {
        let prefix = format!("{}/", self.folder.path().display());
        set.faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect()
    }
}

/// What is said of a file that stands alone.
fn faults_of(text: &str) -> Vec<String> {
    let mut folder = Folder::new();
    folder.write("a.yaml", text);
    let set = folder.read();
    folder.faults(&set)
}

fn names(set: &SloSet) -> Vec<String> {
    set.slos.iter().map(|slo| format!("{}/{} {}", slo.slo.service, slo.slo.name, slo.slo.target)).collect()
}

#[test]
fn a_document_says_what_is_counted() {
    let mut folder = Folder::new();
    let annotated = AVAILABILITY
        .replace(
            "  name: search-availability\n",
            "  name: x\n  annotations: {toolgauge/mode: attempt, toolgauge/layer: server, other/y: z}\n",
        )
        .replace("good:", "bad:")
        .replace("target: 0.999", "targetPercent: 99.95");
    folder.write("a.yaml", &format!("{AVAILABILITY}---\n{annotated}"));
    let set = folder.read();
    assert_eq!(folder.faults(&set), [""; 0]);
    assert_eq!(names(&set), ["shop/search-availability 0.999", "shop/x 0.9995"]);
    let (first, second) = (&set.slos[0].slo, &set.slos[1].slo);
    assert_eq!((first.sli.mode, first.sli.layer, first.sli.judged), (Mode::Logical, None, Judged::Good));
    assert_eq!(
        (second.sli.mode, second.sli.layer, second.sli.judged),
        (Mode::Attempt, Some(Layer::Server), Judged::Bad)
    );
    assert_eq!(first.sli.total.text, "kind = 'tool' AND tool_name = 'search'");
    assert_eq!(first.window.to_string(), "30d");
    assert_ne!(first.sli.revision(), second.sli.revision());
}

/// Groups change what is counted, and so the name of its rows; there may be as many of them as memory is planned for.
#[test]
fn groups_are_bounded_over_all_files() {
    let grouped = |name: &str, annotations: &str| {
        let metadata = format!("  name: {name}\n  annotations: {{{annotations}}}\n");
        AVAILABILITY.replace("  name: search-availability\n", &metadata)
    };
    let mut folder = Folder::new();
    let two = "toolgauge/group-by: 'tool, tenant', toolgauge/groups-max: '9'";
    folder.write("a.yaml", &format!("{AVAILABILITY}---\n{}", grouped("x", two)));
    let set = folder.read();
    assert_eq!(folder.faults(&set), [""; 0]);
    let (plain, by_two) = (&set.slos[0].slo, &set.slos[1].slo);
    assert_eq!((plain.groups_max(), by_two.groups_max()), (1, 10));
    assert_eq!(by_two.group_columns(), ["tool_name", "tenant"]);
    assert_eq!(plain.revision(), plain.sli.revision());
    assert_ne!(by_two.revision(), plain.revision());

    // 4 x 10,001 and the two above leave room for 9,985 more.
    let most = "toolgauge/group-by: service, toolgauge/groups-max: '10000'";
    let four: Vec<String> = (0..4).map(|number| grouped(&format!("b{number}"), most)).collect();
    folder.write("b.yaml", &four.join("---\n"));
    let last = |max: usize| format!("toolgauge/group-by: agent, toolgauge/groups-max: '{max}'");
    folder.write("c.yaml", &grouped("c", &last(9_985)));
    let set = folder.read();
    let faults = folder.faults(&set);
    let expected = "with its 9986 groups, that of all others included, there would be 40015 + 9986 = 50001 to watch, at most 50000 are";
    assert!(faults.len() == 1 && faults[0].starts_with("c.yaml:") && faults[0].contains(expected), "{faults:?}");
    folder.write("c.yaml", &grouped("c", &last(9_984)));
    let set = folder.read();
    assert_eq!((folder.faults(&set), set.slos.len()), (Vec::new(), 7));
}

#[test]
fn faults_say_file_line_key_and_what_to_write() {
    let with = |from: &str, to: &str| {
        assert!(AVAILABILITY.contains(from), "{from}");
        faults_of(&AVAILABILITY.replace(from, to))
    };
    for (from, to, expected) in [
        (
            "target: 0.999",
            "target: 1",
            "a.yaml:20:15: error: `spec.objectives[0].target`: a target must be a decimal number from 0 to below 1",
        ),
        ("target: 0.999", "target: 1.0", "leaves no budget"),
        ("target: 0.999", "target: 99.9", "got \"99.9\" (write something like 0.999)"),
        ("target: 0.999", "target: 0", "a target of 0 is met by anything"),
        ("target: 0.999", "target: most", "\"most\" is no decimal number (write like 0.999)"),
        (
            "target: 0.999",
            "traget: 0.999",
            "a.yaml:20:7: error: `spec.objectives[0].traget`: the key \"traget\" is not known (write \"target\")",
        ),
        (
            "target: 0.999",
            "displayName: x",
            "a.yaml:20:7: error: `spec.objectives[0]`: the key \"target\" is missing (write like 0.999)",
        ),
        ("target: 0.999", "target: 0.9\n      targetPercent: 90", "stand beside each other"),
        ("target: 0.999", "target: 0.999\n    - target: 0.9", "needs a name that no other has (write `displayName`)"),
        (
            "duration: 30d",
            "duration: 30s",
            "a.yaml:16:17: error: `spec.timeWindow[0].duration`: \"30s\" is no duration",
        ),
        ("duration: 30d", "duration: 5m", "\"5m\" is no window that can be kept (write one from 1h to 366d, like 30d)"),
        ("isRolling: true", "isRolling: false", "a window that is not rolling needs `calendar`"),
        (
            "Occurrences",
            "RatioTimeslices",
            "a.yaml:20:7: error: `spec.objectives[0]`: the key \"timeSliceWindow\" is missing (RatioTimeslices needs it)",
        ),
        ("Occurrences", "occurences", "\"occurences\" is not known (write \"Occurrences\")"),
        (
            "openslo/v1",
            "openslo/v2",
            "a.yaml:1:13: error: `apiVersion`: \"openslo/v2\" is not known (write \"openslo/v1\")",
        ),
        ("kind: SLO", "kind: Slo", "`kind`: \"Slo\" is not known"),
        ("service: shop", "labels: {}", "the key \"service\" is missing"),
        ("service: shop", "service: ''", "\"\" is no name of a service"),
        ("search-availability", "a b", "\"a b\" is no name"),
        (
            "outcome = 'ok'",
            "result = 'ok'",
            "a.yaml:12:57: error: `spec.indicator.spec.ratioMetric.good.metricSource.spec.where`: the condition cannot be used: ",
        ),
        ("outcome = 'ok'", "outcome = 'ok", "the condition cannot be used"),
        ("where: outcome = 'ok'", "query: up", "the key is not known (the only one is `where`)"),
        ("        good:", "        raw:", "a ratio needs `total` and one of `good` and `bad`"),
        ("    spec:\n      ratio", "    sepc:\n      ratio", "the key \"spec\" is missing"),
        (
            "metadata:",
            "metadata:\n  annotations: {toolgauge/mode: attempts}",
            "\"attempts\" is not known here (write logical or attempt)",
        ),
        (
            "metadata:",
            "metadata:\n  annotations: {toolgauge/mod: attempt}",
            "known annotations: toolgauge/alert-after, toolgauge/consumption, toolgauge/cost-budget",
        ),
        (
            "service: shop",
            "service: &s shop\n  description: *s",
            "a.yaml:7:16: error: aliases such as \"*name\" are not taken",
        ),
        ("metadata:", "kind: SLO\nmetadata:", "a.yaml:3:1: error: the key \"kind\" stands here again, after line 2"),
        (
            "  objectives:",
            "  alertPolicies: [{alertPolicyRef: none}]\n  objectives:",
            "there is no AlertPolicy \"none\" in the files given",
        ),
    ] {
        let faults = with(from, to);
        assert!(
            faults.iter().any(|fault| fault.contains(expected) && fault.contains(": error: ")),
            "{to}: {faults:#?}"
        );
    }
    let op = with("target: 0.999", "target: 0.999\n      op: gt");
    assert_eq!(
        op,
        [
            "a.yaml:21:11: warning: `spec.objectives[0].op`: a ratio is always compared with its target by `gte`; this is not looked at"
        ]
    );
}

#[test]
fn the_last_good_version_of_a_broken_file_stays_in_force() {
    let mut folder = Folder::new();
    let named = |name: &str, target: &str| AVAILABILITY.replace("search-availability", name).replace("0.999", target);
    folder.write("a.yaml", &named("a", "0.99"));
    folder.write("teams/b.yml", &named("b", "0.98"));
    folder.write("broken.yaml", "kind: [");
    folder.write("notes.txt", "kind: [");
    folder.write(".hidden/c.yaml", "kind: [");
    let set = folder.read();
    assert_eq!(names(&set), ["shop/a 0.99", "shop/b 0.98"]);
    assert_eq!((set.files, set.broken_files), (3, 1), "{:?}", set.faults);
    assert!(folder.sources.read(&folder.engine).is_none(), "nothing has changed");

    // A is broken, b is changed: the old a, the new b.
    folder.write("a.yaml", &named("a", "99"));
    folder.write("teams/b.yml", &named("b", "0.97"));
    let set = folder.read();
    assert_eq!(names(&set), ["shop/a 0.99", "shop/b 0.97"]);
    assert!(folder.faults(&set).iter().any(|fault| fault.starts_with("a.yaml:20:15: error: ")), "{:?}", set.faults);

    // B takes the name of a, which is right in itself: both stay as they were.
    folder.write("a.yaml", &named("a", "0.95"));
    folder.write("teams/b.yml", &named("a", "0.94"));
    let set = folder.read();
    assert_eq!(names(&set), ["shop/a 0.95", "shop/b 0.97"]);
    assert!(folder.faults(&set).iter().any(|fault| fault.contains("SLO \"a\" is already in")), "{:?}", set.faults);

    // Repaired and removed.
    folder.write("teams/b.yml", &named("c", "0.94"));
    std::fs::remove_file(folder.folder.path().join("a.yaml")).unwrap();
    std::fs::remove_file(folder.folder.path().join("broken.yaml")).unwrap();
    let set = folder.read();
    assert_eq!(names(&set), ["shop/c 0.94"]);
    assert_eq!((set.broken_files, set.faults.len()), (0, 0));
}

/// Editors empty or remove a file before they write it anew.
#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let mut folder = Folder::new();
    folder.write("a.yaml", AVAILABILITY);
    assert_eq!(folder.read().slos.len(), 1);
    folder.write("a.yaml", "");
    assert!(folder.sources.read(&folder.engine).is_none(), "it is empty for a moment");
    folder.write("a.yaml", &AVAILABILITY.replace("0.999", "0.99"));
    assert!(folder.sources.read(&folder.engine).is_none(), "it is seen for the first time");
    let set = folder.sources.read(&folder.engine).unwrap();
    assert_eq!(names(&set), ["shop/search-availability 0.99"]);

    let path = folder.folder.path().join("a.yaml");
    std::fs::remove_file(&path).unwrap();
    assert!(folder.sources.read(&folder.engine).is_none(), "it is gone for a moment");
    folder.write("a.yaml", &AVAILABILITY.replace("0.999", "0.99"));
    assert!(folder.sources.read(&folder.engine).is_none(), "it is what it was");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(folder.read().slos.len(), 0);
}

#[test]
fn a_folder_that_is_gone_for_now_has_not_lost_its_slos() {
    let mut folder = Folder::new();
    folder.write("a.yaml", AVAILABILITY);
    assert_eq!(folder.read().slos.len(), 1);
    let away = folder.folder.path().with_extension("away");
    std::fs::rename(folder.folder.path(), &away).unwrap();
    let set = folder.read();
    assert_eq!(set.slos.len(), 1);
    assert!(set.faults[0].message.contains("there is no such file or folder"), "{:?}", set.faults);
    std::fs::rename(&away, folder.folder.path()).unwrap();
    assert!(folder.read().faults.is_empty());
}

#[test]
fn an_indicator_can_stand_in_another_file() {
    let mut folder = Folder::new();
    let (head, rest) = AVAILABILITY.split_once("  indicator:\n    spec:\n").unwrap();
    let (sli, tail) = rest.split_once("  timeWindow").unwrap();
    folder.write("slo.yaml", &format!("{head}  indicatorRef: search\n  timeWindow{tail}"));
    let document = format!("apiVersion: openslo/v1\nkind: SLI\nmetadata:\n  name: search\nspec:\n{sli}");
    let document = document.replace("\n      ", "\n  ").replace("spec:\n      ", "spec:\n  ");
    folder.write("sli.yaml", &document);
    let set = folder.read();
    assert_eq!(folder.faults(&set), [""; 0]);
    assert_eq!(set.slos[0].slo.sli.total.file.rsplit('/').next(), Some("sli.yaml"));

    folder.write("sli.yaml", &document.replace("name: search", "name: other"));
    let set = folder.read();
    assert_eq!(set.slos.len(), 1, "the last good version of what no longer fits together");
    assert!(
        folder.faults(&set)[0].contains("slo.yaml:7:17: error: `spec.indicatorRef`: there is no SLI \"search\""),
        "{:?}",
        set.faults
    );
}

#[test]
fn slos_of_other_systems_are_listed_and_not_evaluated() {
    let mut folder = Folder::new();
    folder.write("a.json", r#"[{"apiVersion": "openslo/v1", "kind": "DataSource", "metadata": {"name": "prom"}, "spec": {"type": "Prometheus"}},
        {"apiVersion": "openslo/v1", "kind": "SLO", "metadata": {"name": "cpu"}, "spec": {"service": "web", "budgetingMethod": "Timeslices",
         "indicator": {"spec": {"thresholdMetric": {"metricSource": {"metricSourceRef": "prom", "spec": {"query": "up"}}}}},
         "objectives": [{"op": "gt", "value": 1, "target": 0.995, "timeSliceTarget": 0.95, "timeSliceWindow": "1m"}]}}]"#);
    let set = folder.read();
    assert_eq!((set.slos.len(), set.broken_files), (0, 0), "{:?}", set.faults);
    assert_eq!((&*set.not_evaluated[0].service, &*set.not_evaluated[0].name), ("web", "cpu"));
    assert!(set.not_evaluated[0].reason.contains("of type \"Prometheus\" (write `type: toolgauge`"));
    assert_eq!(set.faults[0].severity, Severity::Warning);
}

#[test]
fn a_threshold_is_answered_with_the_rewrite() {
    let text = AVAILABILITY.replace("ratioMetric:\n        counter: true\n        good:", "thresholdMetric:").replace(
        "          metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}\n        total:\n          metricSource",
        "        metricSource",
    );
    let text = text.replace("- target: 0.999", "- {op: lt, value: 500, target: 0.999}");
    let faults = faults_of(&text);
    assert!(faults[0].contains("such as `duration_ns <= 500000000`"), "{faults:?}");
}

#[test]
fn hostile_files_are_refused_quickly() {
    for text in [
        "\0",
        "\u{feff}",
        "- - - - -",
        "{",
        "a: b: c",
        &"a".repeat(5 << 20),
        &"{a: ".repeat(10_000),
        "!!binary x",
        "%YAML 9.9\n---\na",
    ] {
        let faults = faults_of(text);
        assert!(text == "\u{feff}" || faults.iter().any(|fault| fault.contains("error: ")), "{text:.20}: {faults:?}");
    }
}

/// Conditions see one row and nothing else, and cannot do anything.
#[test]
fn hostile_conditions_are_refused() {
    for (condition, said) in [
        ("outcome = (SELECT max(outcome) FROM calls)", "the condition cannot be used"),
        ("EXISTS (SELECT 1)", "the condition cannot be used"),
        ("tool_name IN (SELECT tool_name FROM calls)", "the condition cannot be used"),
        ("count(*) > 1", "the condition cannot be used"),
        ("row_number() OVER () = 1", "the condition cannot be used"),
        ("end_time < now()", "the condition cannot be used"),
        ("random() < 0.5", "the condition cannot be used"),
        ("uuid() = 'x'", "the condition cannot be used"),
        ("pg_sleep(1) IS NULL", "the condition cannot be used"),
        ("read_csv('/etc/passwd') IS NULL", "the condition cannot be used"),
        ("no_such_column = 1", "no_such_column"),
        ("tool_name", "the condition cannot be used"),
        ("1 / 0 = 1; DROP TABLE calls", "the condition cannot be used"),
        ("TRUE UNION SELECT TRUE", "the condition cannot be used"),
        ("$1 = 1", "the condition cannot be used"),
        ("", "the condition cannot be used"),
    ] {
        let quoted = format!("{{where: {}}}", serde_json::Value::from(condition));
        let faults = faults_of(&AVAILABILITY.replace("{where: outcome = 'ok'}", &quoted));
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("a.yaml:12:") && fault.contains(": error: ") && fault.contains(said)),
            "{condition}: {faults:?}"
        );
    }
    let deep = format!("{{where: \"{}outcome = 'ok'{}\"}}", "(".repeat(5_000), ")".repeat(5_000));
    let faults = faults_of(&AVAILABILITY.replace("{where: outcome = 'ok'}", &deep));
    assert!(faults.iter().any(|fault| fault.contains("error: ")), "{faults:?}");
    let long = format!("{{where: \"outcome = 'ok'{}\"}}", " OR outcome = 'ok'".repeat(1_000));
    let faults = faults_of(&AVAILABILITY.replace("{where: outcome = 'ok'}", &long));
    assert!(faults[0].contains("the condition has 18014 bytes, at most 16384 are taken"), "{faults:?}");
}

/// Ten megabytes of anything are answered at once, and memory does not grow with it.
#[test]
fn large_files_are_refused_before_they_are_read_whole() {
    let mut many = AVAILABILITY.to_owned();
    while many.len() < 10 << 20 {
        many.push_str("---\n");
        many.push_str(AVAILABILITY);
    }
    let began = std::time::Instant::now();
    let faults = faults_of(&many);
    assert!(faults[0].contains("at most 4194304 are read (split it)"), "{faults:?}");
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}

/// What the documentation shows can be used.
#[test]
fn the_examples_of_the_documentation_are_taken() {
    let text = include_str!("../../../docs/slo.md");
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let examples: Vec<&str> = blocks.filter(|block| block.starts_with("apiVersion")).collect();
    assert!(examples.len() >= 4, "{}", examples.len());
    for example in examples {
        let faults = faults_of(example);
        assert!(faults.is_empty(), "{faults:?} in {example}");
    }
}
