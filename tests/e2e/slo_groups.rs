//! SLOs that are one for each tool: from OTLP to one page.

use std::collections::BTreeMap;

use toolgauge_proto::api::slo::SloReport;

use crate::process::{program, run};
use crate::sandbox::{LIMIT, until};
use crate::slo_world::{Answers, Calls, Manager, SLO, World};

/// Two tools have a place of their own.
fn grouped() -> String {
    let by = "annotations: {toolgauge/mode: attempt, toolgauge/group-by: tool, toolgauge/groups-max: '2'}";
    SLO.replace("annotations: {toolgauge/mode: attempt}", by)
        .replace("kind = 'tool' AND tool_name = 'search'", "kind = 'tool'")
}

fn of<'a>(slos: &'a [SloReport], tool: &str) -> &'a SloReport {
    let group = BTreeMap::from([("tool_name".to_owned(), tool.to_owned())]);
    slos.iter().find(|slo| slo.group == group).unwrap_or_else(|| panic!("no {tool} in {slos:?}"))
}

/// Scenario: three tools, of which two have groups of their own, and the third one is in that of all others; one of the two fails; then the server
/// is started anew, once without its cache. Guarantees: one page, with the label of the tool, and nothing for the others; the figures of each group are
/// those of the SQL that goes with them; a start changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn one_tool_of_three_fails_and_one_page_says_which() {
    let manager = Manager::start(Answers::With(200)).await;
    let mut world = World::start("2026-03-01T12:00:00Z", &grouped(), &[manager.url()]).await;
    for minute in 0..20 {
        world.advance(30);
        let search = if minute < 10 { Calls::Good } else { Calls::Bad };
        world.send_of("search", 20, search).await;
        world.evaluated().await;
        for tool in ["fetch", "mail"] {
            world.send_of(tool, 20, Calls::Good).await;
        }
        world.evaluated().await;
    }
    let slos = world.evaluated().await.slos;
    let tools: Vec<&str> = slos.iter().map(|slo| slo.group["tool_name"].as_str()).collect();
    assert_eq!(tools, ["__other__", "fetch", "search"]);
    let state = |tool: &str| (of(&slos, tool).good, of(&slos, tool).bad, of(&slos, tool).state.as_str());
    assert_eq!(state("search"), (200, 200, "firing"));
    assert_eq!((state("fetch"), state("__other__")), ((400, 0, "inactive"), (400, 0, "inactive")));

    until(LIMIT, "the page is delivered", async || (!manager.tier("fast").is_empty()).then_some(())).await;
    let page = manager.tier("fast").remove(0);
    let labels: BTreeMap<String, String> = serde_json::from_value(page["labels"].clone()).unwrap();
    let expected = [
        ("alertname", "ErrorBudgetBurn"),
        ("burn_tier", "fast"),
        ("service", "shop"),
        ("severity", "page"),
        ("slo", "search-availability"),
        ("tool", "search"),
    ];
    assert_eq!(labels, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let link = page["generatorURL"].as_str().unwrap();
    assert!(
        link.ends_with("/api/v1/slos/shop/search-availability?group=%7B%22tool_name%22%3A%22search%22%7D"),
        "{link}"
    );
    let annotation = |name: &str| page["annotations"][name].as_str().unwrap_or_else(|| panic!("{name}: {page}"));
    assert_eq!((annotation("team"), annotation("criticality")), ("discovery", "critical"));
    assert!(annotation("summary").contains("search-availability (tool_name \"search\") burns"), "{page}");
    let failed: u64 = annotation("long_bad").parse().unwrap();
    let causes = annotation("top_contributors");
    assert!(causes.starts_with("shop-agent search timeout ") && !causes.contains(','), "{causes}");
    let total: u64 = annotation("long_total").parse().unwrap();
    assert_eq!(world.api.row(annotation("sql")).await, [total - failed, failed]);
    let tools: Vec<serde_json::Value> = manager.alerts().iter().map(|alert| alert["labels"]["tool"].clone()).collect();
    assert!(tools.iter().all(|tool| tool == "search"), "{tools:?}");
    let groups = world.api.sql("SELECT DISTINCT \"group\", tool FROM alerts").await;
    assert_eq!(groups, [["{\"tool_name\":\"search\"}", "search"]]);

    for (tool, good, bad) in [("search", 200, 200), ("fetch", 400, 0), ("__other__", 400, 0)] {
        figures(&world, tool, [good, bad]).await;
    }
    let path = "/api/v1/slos/shop/search-availability";
    let answer = world.api.get(path).await;
    let list = r#"name one with \"group\": {\"tool_name\":\"__other__\"}, {\"tool_name\":\"fetch\"}, {\"tool_name\":\"search\"}"#;
    assert!(answer.status == 400 && answer.text.contains(list), "{answer:?}");
    assert_eq!(world.api.get(&format!("{path}?group=%7B%22tool%22:%22mail%22%7D")).await.status, 404);
    assert_eq!(world.api.get(&format!("{path}/proof?group=mail")).await.status, 400);
    let metrics = world.api.get("/metrics").await.text;
    let line = r#"toolgauge_slo_events{service="shop",slo="search-availability",group="{\"tool_name\":\"search\"}",result="bad",window="5m"}"#;
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(world.metric("toolgauge_slo_groups").await, 3.0);

    let revision = of(&slos, "search").revision.clone();
    world = world.kill_and_restart().await;
    let again = world.evaluated().await.slos;
    let counts = |slos: &[SloReport]| -> Vec<(String, u64, u64, String)> {
        slos.iter().map(|slo| (slo.group["tool_name"].clone(), slo.good, slo.bad, slo.state.clone())).collect()
    };
    assert_eq!((counts(&again), &of(&again, "search").revision), (counts(&slos), &revision));
    world = world.restart(|data| std::fs::remove_dir_all(data.join("lake/slo_1m")).unwrap()).await;
    let again = world.evaluated().await.slos;
    assert_eq!(counts(&again), counts(&slos));
    assert_ne!(of(&again, "search").revision, revision, "it was counted anew");
    assert_eq!(manager.starts("fast").len(), 1);

    let mut backfill = program();
    backfill.args(["slo", "backfill", "--url", &world.api.url]);
    let (code, out, _) = run(backfill).await;
    assert!(code == 0 && out.ends_with("1 of 1 SLOs have their whole history\n"), "{code}: {out}");
    let mut report = program();
    report.args(["report", "slo", "--format", "csv", "--url", &world.api.url]);
    let (code, out, _) = run(report).await;
    assert!(code == 0 && out.contains("shop,search-availability,tool_name=search,firing,"), "{code}: {out}");
    world.stop().await;
}

/// The figures of a group, by the statements that go with them.
async fn figures(world: &World, tool: &str, expected: [u64; 2]) {
    let query = format!("group=%7B%22tool_name%22:%22{tool}%22%7D");
    let answer = world.api.get(&format!("/api/v1/slos/shop/search-availability?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let detail: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(detail["slo"]["group"]["tool_name"], tool);
    assert_eq!([detail["series"]["good"].as_u64(), detail["series"]["bad"].as_u64()], expected.map(Some), "{detail}");
    assert_eq!(world.api.row(detail["definition"]["sql"].as_str().unwrap()).await, expected);
    let answer = world.api.get(&format!("/api/v1/slos/shop/search-availability/proof?{query}")).await;
    let proof: serde_json::Value = serde_json::from_str(&answer.text).unwrap_or_else(|_| panic!("{}", answer.text));
    assert_eq!((&proof["matches"], &proof["group"]["tool_name"]), (&true.into(), &tool.into()), "{proof}");
    let period = proof["figures"].as_array().unwrap().last().unwrap();
    assert_eq!([period["recounted_good"].as_u64(), period["recounted_bad"].as_u64()], expected.map(Some));
}
