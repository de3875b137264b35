//! The program as a process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::sandbox::{Api, LIMIT, until};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_toolgauge");

/// The program, without settings of whoever runs the tests.
pub(crate) fn program() -> Command {
    without_settings(Command::new(PROGRAM))
}

pub(crate) fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TOOLGAUGE_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn serve_arguments(data: &Path) -> Vec<String> {
    let data = data.display().to_string();
    let any = "127.0.0.1:0";
    ["serve", "--data", &data, "--otlp-grpc", any, "--otlp-http", any, "--http", any].map(str::to_owned).to_vec()
}

/// Exit code, standard output, standard error of a command that ends by itself.
pub(crate) async fn run(command: Command) -> (i32, String, String) {
    run_within(LIMIT, command).await
}

/// The same, for one that takes longer.
pub(crate) async fn run_within(limit: Duration, mut command: Command) -> (i32, String, String) {
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap());
    let output = tokio::time::timeout(limit, output).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A process that serves; killed when dropped.
pub(crate) struct Process {
    child: Child,
    stderr: Option<std::thread::JoinHandle<String>>,
}

/// Where it listens.
pub(crate) struct Doors {
    pub(crate) otlp: SocketAddr,
    pub(crate) otlp_http: SocketAddr,
    pub(crate) api: Api,
}

impl Process {
    /// Starts it, and gives the addresses once it has printed them.
    pub(crate) fn spawn(mut command: Command) -> (Self, tokio::sync::oneshot::Receiver<Doors>) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (ready, doors) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // The data folder is the last that it prints.
            let printed: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("data")).collect();
            let address = |prefix: &str| -> Option<SocketAddr> {
                printed.iter().find_map(|line| line.strip_prefix(prefix))?.trim().parse().ok()
            };
            let addresses = (address("OTLP/gRPC"), address("OTLP/HTTP  http://"), address("HTTP API   http://"));
            if let (Some(otlp), Some(otlp_http), Some(http)) = addresses {
                drop(ready.send(Doors { otlp, otlp_http, api: Api::new(http) }));
            }
            lines.for_each(drop);
        });
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            drop(stderr.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        });
        (Self { child, stderr: Some(stderr) }, doors)
    }

    /// Starts it and waits until it serves.
    pub(crate) async fn start(command: Command) -> (Self, Doors) {
        let (mut process, doors) = Self::spawn(command);
        match tokio::time::timeout(LIMIT, doors).await {
            Ok(Ok(doors)) => (process, doors),
            _ => {
                drop(process.child.kill());
                panic!("it did not come to serve: {}", process.stderr());
            }
        }
    }

    /// Serves from this folder, with settings given as `TOOLGAUGE_...`.
    pub(crate) fn command(data: &Path, settings: &[(&str, &str)]) -> Command {
        let mut command = program();
        command
            .args(serve_arguments(data))
            .env("TOOLGAUGE_ALERTING_LEARN_SLOS", "false")
            .envs(settings.iter().copied());
        command
    }

    /// What it wrote to standard error; waits until it has ended.
    pub(crate) fn stderr(&mut self) -> String {
        self.stderr.take().map_or_else(String::new, |thread| thread.join().unwrap())
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// SIGTERM to the processes that it started: strace itself must live on to write its trace.
    pub(crate) async fn terminate_child(&mut self) {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        for child in children.split_whitespace() {
            let child = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
            rustix::process::kill_process(child, rustix::process::Signal::TERM).unwrap();
        }
        let status = self.until_ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.stderr());
    }

    pub(crate) async fn until_ended(&mut self) -> ExitStatus {
        until(LIMIT, "the process ends", async || self.ended()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() && self.stderr.is_some() {
            drop(writeln!(std::io::stderr(), "its standard error:\n{}", self.stderr()));
        }
    }
}
