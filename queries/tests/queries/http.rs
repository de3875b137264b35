//! The HTTP API over a real socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use toolgauge_proto::api::sessions::SessionsReport;
use toolgauge_proto::api::{Problem, SqlResponse, ToolsReport};
use toolgauge_queries::engine::{Engine, Settings};
use toolgauge_queries::http::{Api, BODY_BYTES_MAX, Origins, serve};
use toolgauge_queries::tables;

use crate::support::{MemoryLake, Rng, Row, Still, random_call, until};

struct Server {
    address: SocketAddr,
    lake: Arc<MemoryLake>,
    engine: Arc<Engine>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn problem(&self) -> Problem {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let problem: Problem = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        problem
    }
}

async fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Reply { status, head: head.to_lowercase(), body: body.to_owned() }
}

impl Server {
    async fn start(settings: Settings) -> Self {
        let mut rng = Rng::new(42);
        let rows: Vec<Row> = (1..=200).map(|position| random_call(&mut rng, position)).collect();
        let lake = MemoryLake::of_calls(&rows[..100], &rows[100..]);
        let engine = Arc::new(tables::engine(settings).unwrap());
        let api = Api::new(
            Arc::clone(&lake) as Arc<dyn toolgauge_proto::lake::Lake>,
            Arc::clone(&engine),
            Arc::new(Still),
            Box::new(|| "toolgauge_of_others 7".to_owned()),
        );
        let api = api.await.unwrap();
        let origins = Origins::parse(&["https://grafana.example.com".to_owned()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, api, origins, async move { stopped.await.unwrap_or(()) }));
        Self { address, lake, engine, stop, task }
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        self.send_with(method, path, "", body).await
    }

    /// With more lines of the head.
    async fn send_with(&self, method: &str, path: &str, more: &str, body: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{more}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses a long body need not read it.
        let written = stream.write_all(body.as_bytes()).await;
        assert!(written.is_ok() || body.len() > BODY_BYTES_MAX);
        read_reply(&mut stream).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "").await
    }

    async fn sql(&self, query: &str) -> Reply {
        self.send("POST", "/api/v1/sql", &json!({ "query": query }).to_string()).await
    }
}

#[tokio::test]
async fn sql_answers_in_json_and_csv() {
    let server = Server::start(Settings::default()).await;
    let reply =
        server.sql("SELECT 1 AS a, 'x,y' AS b, X'AB' AS c, CAST(1.5 AS DECIMAL(9,2)) AS d, 0.0 / 0.0 AS e").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.head.contains("content-type: application/json"));
    let answer: SqlResponse = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(answer.rows, [[json!(1), json!("x,y"), json!("ab"), json!("1.50"), json!(null)]]);
    let columns: Vec<_> = answer.columns.iter().map(|c| (c.name.as_str(), c.data_type.as_str())).collect();
    assert_eq!(columns, [("a", "Int64"), ("b", "Utf8"), ("c", "Binary"), ("d", "Decimal128(9, 2)"), ("e", "Float64")]);
    assert!(!answer.truncated);

    let body = json!({ "query": "SELECT 1 AS a, 'x,y' AS b, NULL AS c" }).to_string();
    let reply = server.send("POST", "/api/v1/sql?format=csv", &body).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "a,b,c\r\n1,\"x,y\",\r\n"));
    assert!(reply.head.contains("content-type: text/csv") && reply.head.contains("toolgauge-truncated: false"));
    assert_eq!(server.sql("SELECT count(*) FROM calls").await.json()["rows"], json!([[200]]));
}

#[tokio::test]
async fn every_fault_is_a_problem_document() {
    let server = Server::start(Settings { timeout: Duration::from_millis(700), ..Settings::default() }).await;
    let sql = |query: &str| json!({ "query": query }).to_string();
    let too_long = "x".repeat(BODY_BYTES_MAX + 1);
    for (method, path, body, status, kind, words) in [
        ("GET", "/nothing", "", 404, "about:blank", "lists the addresses"),
        ("GET", "/api/v1/sql", "", 405, "about:blank", "takes POST"),
        ("DELETE", "/api/v1/tools", "", 405, "about:blank", "takes GET"),
        ("POST", "/api/v1/sql", "", 400, "about:blank", "the body must be JSON such as"),
        ("POST", "/api/v1/sql", "{\"query\": 1}", 400, "about:blank", "expected a string"),
        ("POST", "/api/v1/sql", "{\"query\": \"SELECT 1\", \"limit\": 1}", 400, "about:blank", "limit"),
        ("POST", "/api/v1/sql", "\u{0}\u{1}", 400, "about:blank", "the body must be JSON such as"),
        ("POST", "/api/v1/sql?format=xml", "{}", 400, "about:blank", "json or csv"),
        ("POST", "/api/v1/sql?x=y", "{}", 400, "about:blank", "x"),
        ("POST", "/api/v1/sql", &too_long, 413, "about:blank", "over 1048576 bytes"),
        ("POST", "/api/v1/sql", &sql("DROP TABLE calls"), 400, "not_read_only", "only one reading statement"),
        ("POST", "/api/v1/sql", &sql("SELECT * FROM '/etc/passwd'"), 400, "invalid", "/etc/passwd"),
        ("POST", "/api/v1/sql", &sql("SELECT 1 / 0"), 422, "failed", "ivide by zero"),
        (
            "POST",
            "/api/v1/sql",
            &sql("SELECT count(*) FROM generate_series(1, 1000000000000)"),
            504,
            "timeout",
            "narrow its time range",
        ),
        ("GET", "/api/v1/tools?from=yesterday", "", 400, "about:blank", "RFC 3339"),
        ("GET", "/api/v1/tools?from=now&to=-1h", "", 400, "about:blank", "before"),
        ("GET", "/api/v1/tools?tool=x", "", 400, "about:blank", "tool"),
    ] {
        let reply = server.send(method, path, body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.body);
        let problem = reply.problem();
        assert_eq!(problem.problem_type, kind, "{method} {path}");
        assert!(problem.detail.contains(words), "{method} {path}: {}", problem.detail);
        if status == 405 {
            assert!(reply.head.contains("allow: "), "{}", reply.head);
        }
    }
    assert_eq!(server.sql("SELECT 1").await.status, 200);
}

#[tokio::test]
async fn the_tools_report_covers_the_last_hour_by_default() {
    let server = Server::start(Settings::default()).await;
    let reply = server.get("/api/v1/tools").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let report: ToolsReport = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(
        (report.scope.from.as_str(), report.scope.to.as_str()),
        ("2025-10-09T11:34:56Z", "2025-10-09T12:34:56Z")
    );
    assert!(!report.tools.is_empty());
    let wider = server.get("/api/v1/tools?from=-2h&to=2025-10-09T12:34:56%2B00:00&service=a&environment=b").await;
    let wider: ToolsReport = serde_json::from_str(&wider.body).unwrap();
    assert_eq!(wider.scope.from, "2025-10-09T10:34:56Z");
}

#[tokio::test]
async fn readiness_follows_the_lake_and_says_why() {
    let server = Server::start(Settings::default()).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    {
        let mut status = server.lake.status.lock().unwrap();
        status.ready = false;
        status.not_ready_reason = Some("the log is being replayed".to_owned());
    }
    let reply = server.get("/readyz").await;
    assert_eq!((reply.status, reply.problem().detail.as_str()), (503, "the log is being replayed"));
    assert!(reply.head.contains("retry-after: "));
    assert_eq!(server.get("/healthz").await.status, 200);
    let status = server.get("/api/v1/status").await.json();
    assert_eq!(status["ingest"]["ready"], json!(false));
    assert!(status["memory_bytes"].as_u64().unwrap() > 0);
}

/// Guarantees: the report is what the view says, the latest first; ranges that follow one another have each session once.
#[tokio::test]
async fn sessions_are_those_of_the_view() {
    let server = Server::start(Settings::default()).await;
    let of = async |query: &str| {
        let report: SessionsReport =
            serde_json::from_value(server.get(&format!("/api/v1/sessions{query}")).await.json()).unwrap();
        report
    };
    let all = of("?from=-96h").await;
    let rows = server
        .sql(
            "SELECT tenant, session_id, iterations, tool_calls, tool_errors, logical_tool_errors, completed, closed, cost_usd, \
             duration_ns, input_tokens FROM sessions ORDER BY end_time DESC, tenant, session_id, start_time",
        )
        .await;
    let rows: SqlResponse = serde_json::from_str(&rows.body).unwrap();
    assert!(rows.rows.len() > 4);
    let found: Vec<Vec<Value>> = (all.sessions.iter())
        .map(|session| {
            vec![
                json!(session.tenant),
                json!(session.session_id),
                json!(session.iterations),
                json!(session.tool_calls),
                json!(session.tool_errors),
                json!(session.logical_tool_errors),
                json!(session.completed),
                json!(session.closed),
                json!(session.cost_usd),
                json!((session.duration_ms * 1e6).round() as i64),
                json!(session.input_tokens),
            ]
        })
        .collect();
    // SQL keeps the zeros at the end of an amount.
    let short = |value: &Value| match value.as_str() {
        Some(text) => json!(text.trim_end_matches('0').trim_end_matches('.')),
        None => value.clone(),
    };
    let expected = rows.rows.iter().map(|row| {
        row.iter().enumerate().map(|(at, value)| if at == 8 { short(value) } else { value.clone() }).collect::<Vec<_>>()
    });
    assert_eq!(found, expected.collect::<Vec<_>>());
    let halves = [of("?from=-96h&to=-24h").await, of("?from=-24h").await];
    assert_eq!(halves.iter().map(|half| half.sessions.len()).sum::<usize>(), all.sessions.len());
    assert!(halves.iter().all(|half| !half.sessions.is_empty()));
    let cut = of("?from=-96h&limit=2").await;
    assert_eq!((cut.sessions.as_slice(), cut.truncated, all.truncated), (&all.sessions[..2], true, false));
    for (query, said) in [("limit=0", "between 1 and 10000"), ("limit=x", "limit"), ("by=tool", "unknown field")] {
        let reply = server.get(&format!("/api/v1/sessions?{query}")).await;
        let problem = reply.problem();
        assert!(reply.status == 400 && problem.detail.contains(said), "{query}: {}", problem.detail);
    }
}

#[tokio::test]
async fn metrics_count_statements_by_how_they_ended() {
    let server = Server::start(Settings::default()).await;
    server.sql("SELECT * FROM generate_series(1, 5)").await;
    server.sql("SELEC").await;
    let text = server.get("/metrics").await.body;
    for line in [
        "toolgauge_of_others 7\n",
        "toolgauge_queries_total{result=\"ok\"} 1\n",
        "toolgauge_queries_total{result=\"invalid\"} 1\n",
        "toolgauge_query_rows_total 5\n",
        "toolgauge_queries_running 0\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn documents_are_served() {
    let server = Server::start(Settings::default()).await;
    assert!(server.get("/").await.body.contains("/api/v1/tools"));
    assert_eq!(server.get("/api/v1/openapi.json").await.json()["openapi"], json!("3.1.0"));
}

#[tokio::test]
async fn a_client_that_goes_away_stops_its_statement() {
    let server = Server::start(Settings { timeout: Duration::from_secs(600), ..Settings::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = json!({ "query": "SELECT count(*) FROM generate_series(1, 1000000000000)" }).to_string();
    let request = format!("POST /api/v1/sql HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    until("it runs", || server.engine.running() == 1).await;
    drop(stream);
    until("it has stopped", || server.engine.running() == 0).await;
}

#[tokio::test]
async fn the_end_waits_for_requests_in_flight() {
    let server = Server::start(Settings { timeout: Duration::from_secs(1), ..Settings::default() }).await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    let body = json!({ "query": "SELECT count(*) FROM generate_series(1, 1000000000000)" }).to_string();
    let request = format!("POST /api/v1/sql HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    busy.write_all(request.as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    until("it runs", || server.engine.running() == 1).await;
    server.stop.send(()).unwrap();
    assert_eq!(read_reply(&mut busy).await.status, 504);
    server.task.await.unwrap().unwrap();
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn bytes_that_are_no_http_do_not_stop_the_server() {
    let server = Server::start(Settings::default()).await;
    for bytes in
        [&b"\x16\x03\x01\x02\x00garbage\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"", b"GET /\xff HTTP/1.1\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Reset or closed or 400: the server may choose.
        if stream.read_to_end(&mut answer).await.is_ok() && !answer.is_empty() {
            assert!(answer.starts_with(b"HTTP/1.1 400") || answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
        }
    }
    assert_eq!(server.sql("SELECT 1").await.status, 200);
}

/// Scenario: a browser asks for pages of an address that is allowed, of another one, and for nobody.
#[tokio::test]
async fn web_pages_of_the_origins_that_are_set_may_read_and_no_others() {
    let server = Server::start(Settings::default()).await;
    let allowed = "origin: https://grafana.example.com\r\n";
    let allows = |reply: &Reply| reply.head.contains("access-control-allow-origin: https://grafana.example.com");
    let asking = format!("{allowed}access-control-request-method: POST\r\n");
    let reply = server.send_with("OPTIONS", "/api/v1/sql", &asking, "").await;
    assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{}", reply.head);
    assert!(allows(&reply) && reply.head.contains("access-control-allow-headers: authorization, content-type"));
    for path in ["/api/v1/status", "/api/v1/tools", "/nothing"] {
        let reply = server.send_with("GET", path, allowed, "").await;
        assert!(allows(&reply) && reply.head.contains("vary: origin"), "{path}: {}", reply.head);
        let reply = server.send_with("GET", path, "origin: https://example.com\r\n", "").await;
        assert!(!reply.head.contains("access-control"), "{path}: {}", reply.head);
        assert!(!server.get(path).await.head.contains("access-control"), "{path}");
    }
    let reply = server.send_with("OPTIONS", "/api/v1/sql", "origin: https://example.com\r\n", "").await;
    assert_eq!(reply.status, 405);

    let wrong = |origin: &str| Origins::parse(&[origin.to_owned()]).unwrap_err().to_string();
    for origin in ["grafana.example.com", "https://", "https://a/b", "null"] {
        assert!(wrong(origin).starts_with(&format!("\"{origin}\" is no origin of web pages (write like")), "{origin}");
    }
    assert!(Origins::parse(&["*".to_owned()]).is_ok());
}
