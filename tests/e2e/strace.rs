//! The order of the program's system calls: no answer leaves before the sync of what it acknowledges.

use std::collections::BTreeMap;
use std::process::Command;

use prost::Message as _;

use crate::process::{PROGRAM, Process, serve_arguments, without_settings};
use crate::sandbox::{Raw, TRACES, now_ns};
use crate::traffic::{request, text, tool_span};

const CLIENTS: u64 = 4;
const EXPORTS: u64 = 25;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// One system call; `begun` and `ended` are lines of the trace, in the order in which things happened.
#[derive(Debug)]
struct Call {
    name: String,
    /// Path of the file, or what strace says of the first argument.
    file: String,
    begun: usize,
    ended: usize,
    result: i64,
    /// All bytes given or got, in order.
    bytes: Vec<u8>,
}

/// Reads what `strace -f -yy -xx` wrote.
fn parse(trace: &str) -> Vec<Call> {
    let mut open = BTreeMap::<&str, (usize, String)>::new();
    let mut calls = Vec::new();
    for (line, text) in trace.lines().enumerate() {
        let Some((pid, text)) = text.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix("<unfinished ...>") {
            open.insert(pid, (line, begun.to_owned()));
        } else if let Some((_, rest)) = text.strip_prefix("<... ").and_then(|text| text.split_once("resumed>")) {
            if let Some((begun, first)) = open.remove(pid) {
                calls.extend(call(&format!("{first}{rest}"), begun, line));
            }
        } else {
            calls.extend(call(text, line, line));
        }
    }
    calls
}

fn call(text: &str, begun: usize, ended: usize) -> Option<Call> {
    let (name, arguments) = text.split_once('(')?;
    let (arguments, result) = arguments.rsplit_once(" = ")?;
    let result = result.split_whitespace().next()?.parse().ok()?;
    let file = arguments.split_once(", ").map_or(arguments.trim_end().trim_end_matches(')'), |(file, _)| file);
    let mut bytes = Vec::new();
    // With -xx, quotes stand only around strings of \x...
    for hex in arguments.split('"').skip(1).step_by(2) {
        bytes.extend(unhex(hex));
    }
    let file = match file.split_once('<') {
        Some((_, path)) if path.starts_with("\\x") => {
            String::from_utf8(unhex(path.split(['<', '>']).next().unwrap_or(path))).unwrap()
        }
        _ => file.to_owned(),
    };
    let is_transfer =
        name.starts_with("write") || name.starts_with("pwrite") || name.starts_with("send") || name.starts_with("re");
    if is_transfer {
        bytes.truncate(usize::try_from(result).unwrap_or(0));
    }
    Some(Call { name: name.to_owned(), file, begun, ended, result, bytes })
}

fn unhex(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// An HTTP/2 frame.
struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
    /// The line of the trace where the call began that moved its first byte.
    first: usize,
}

/// The frames in what went one way over a connection.
fn frames<'a>(calls: impl Iterator<Item = &'a Call>) -> Vec<Frame> {
    let (mut bytes, mut begun) = (Vec::new(), Vec::new());
    for call in calls {
        begun.extend(std::iter::repeat_n(call.begun, call.bytes.len()));
        bytes.extend_from_slice(&call.bytes);
    }
    let mut at = if bytes.starts_with(PREFACE) { PREFACE.len() } else { 0 };
    let mut frames = Vec::new();
    while let Some(head) = bytes.get(at..at + 9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7FFF_FFFF;
        let Some(payload) = bytes.get(at + 9..at + 9 + length) else { break };
        frames.push(Frame { kind: head[3], stream, payload: payload.to_vec(), first: begun[at] });
        at += 9 + length;
    }
    frames
}

fn holds(bytes: &[u8], marker: &str) -> bool {
    bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
}

fn marker(client: u64, number: u64) -> String {
    format!("<marker-{client}-{number}>")
}

/// Scenario: four connections export at once, under strace. Guarantees: of every export, the bytes were written to the
/// log, then a sync of that file began and succeeded, and only then the first byte of the answer was written.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_leaves_before_the_sync_of_the_bytes_that_it_acknowledges() {
    let strace = Command::new("strace").arg("-V").output();
    assert!(
        strace.is_ok_and(|output| output.status.success()),
        "strace is missing: run the tests with \"./dev test\", which installs it"
    );
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let mut command = without_settings(Command::new("strace"));
    command
        .args(["-f", "-yy", "-xx", "-s", "100000", "-o"])
        .arg(&trace)
        .arg("-e")
        .arg("trace=write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,sendto,sendmsg,sendmmsg,read,readv,recvfrom,recvmsg")
        .arg(PROGRAM)
        .args(serve_arguments(&folder.path().join("data")))
        .env("TOOLGAUGE_ALERTING_LEARN_SLOS", "false");
    let (mut process, doors) = Process::start(command).await;
    let clients = (0..CLIENTS).map(|client| async move {
        let mut connection = Raw::connect(doors.otlp).await;
        for number in 0..EXPORTS {
            let mut span = tool_span("traced", client, number, now_ns(), 1_000);
            span.attributes.push(text("marker", &marker(client, number)));
            connection.export(TRACES, &request("shop", vec![span]).encode_to_vec()).await;
        }
    });
    futures::future::join_all(clients).await;
    process.terminate_child().await;
    let calls = parse(&std::fs::read_to_string(&trace).unwrap());

    let door = format!("TCP:[{}->", doors.otlp);
    let mut connections = BTreeMap::<&str, (Vec<&Call>, Vec<&Call>)>::new();
    for call in calls.iter().filter(|call| call.file.contains(&door) && call.result > 0) {
        let (received, sent) = connections.entry(&call.file).or_default();
        if call.name.starts_with("re") { received.push(call) } else { sent.push(call) }
    }
    assert_eq!(connections.len() as u64, CLIENTS, "{:?}", connections.keys());
    // Streams by marker, then the first answer of each stream.
    let mut answers = BTreeMap::new();
    for (received, sent) in connections.values() {
        let (asked, answered) = (frames(received.iter().copied()), frames(sent.iter().copied()));
        for frame in asked.iter().filter(|frame| frame.kind == DATA) {
            for (client, number) in (0..CLIENTS).flat_map(|client| (0..EXPORTS).map(move |number| (client, number))) {
                if holds(&frame.payload, &marker(client, number)) {
                    let is_answer =
                        |answer: &&Frame| answer.stream == frame.stream && matches!(answer.kind, HEADERS | DATA);
                    answers.insert((client, number), answered.iter().find(is_answer).unwrap().first);
                }
            }
        }
    }
    assert_eq!(answers.len() as u64, CLIENTS * EXPORTS, "every answer is in the trace");
    for ((client, number), answer) in answers {
        let marker = marker(client, number);
        let is_log = |call: &&Call| call.file.ends_with(".wal");
        let written: Vec<&Call> = calls
            .iter()
            .filter(is_log)
            .filter(|call| call.name.contains("write") && holds(&call.bytes, &marker))
            .collect();
        let [written] = written[..] else { panic!("{marker} was written {} times to the log", written.len()) };
        let synced = calls.iter().filter(is_log).any(|call| {
            matches!(call.name.as_str(), "fdatasync" | "fsync")
                && call.file == written.file
                && call.result == 0
                && call.begun > written.ended
                && call.ended < answer
        });
        assert!(
            synced,
            "{marker}: written at line {}, answered at line {answer}, without a sync between",
            written.ended
        );
    }
}
