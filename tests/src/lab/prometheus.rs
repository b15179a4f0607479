//! A Prometheus that scrapes the node from inside its namespace.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::binaries::target_directory;
use super::command::{Finished, run};
use super::namespace::Namespace;
use super::node::{HEALTH, Node};
use super::process::Process;
use super::traffic::wait_for;

/// Where it answers, inside the namespace.
const ADDRESS: &str = "127.0.0.1:9091";
/// Where its files are, inside the namespace: gone with it.
const FOLDER: &str = "/run/lab/prometheus";
/// The job's name.
const JOB: &str = "peer";
/// The name of the scraped node.
pub const INSTANCE: &str = "node";
/// It starts within a second; a busy machine needs longer.
const START: Duration = Duration::from_secs(30);

/// Prometheus, once a second.
pub struct Prometheus {
    namespace: Namespace,
    process: Process,
}

/// One series of an answer: its labels, and times (Unix, seconds) with values.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Labels, the metric's name included where there is one.
    pub labels: BTreeMap<String, String>,
    /// Times and values.
    pub points: Vec<(f64, f64)>,
}

impl Prometheus {
    /// Starts it in the node's namespace, with these rules (a rules file, as JSON), and waits until it has scraped.
    ///
    /// # Errors
    /// The program is missing, does not start, or does not reach the node.
    pub fn start(node: &Node, rules: &str) -> Result<Self> {
        let namespace = &node.namespace;
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.json"],
            "scrape_configs": [{
                "job_name": JOB,
                "static_configs": [{"targets": [HEALTH.to_string()], "labels": {"instance": INSTANCE}}],
            }],
        });
        let folder = Path::new(FOLDER);
        namespace.enter(|| std::fs::create_dir_all(folder))?;
        namespace.write(&folder.join("prometheus.json"), &config.to_string())?;
        namespace.write(&folder.join("rules.json"), rules)?;
        let mut command = namespace.command(find_prometheus("prometheus")?);
        command.arg(format!("--config.file={FOLDER}/prometheus.json"));
        command.arg(format!("--storage.tsdb.path={FOLDER}/data"));
        command.args(["--web.listen-address", ADDRESS, "--log.level=warn"]);
        let mut process = Process::start("prometheus", &mut command)?;
        let this = namespace.clone();
        let ready = wait_for(START, || this.exec("curl", &["-sf", &format!("http://{ADDRESS}/-/ready")]).is_ok());
        ensure!(ready, "prometheus does not answer: {}", process.log());
        ensure!(process.ended()?.is_none(), "prometheus ended: {}", process.log());
        let prometheus = Self { namespace: this, process };
        // It looks for targets every five seconds.
        let scraped = wait_for(START, || prometheus.query("up == 1").is_ok_and(|found| !found.is_empty()));
        ensure!(scraped, "the node was not scraped: {:?}\n{}", prometheus.query("up"), prometheus.log());
        Ok(prometheus)
    }

    /// What an expression comes to now.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub fn query(&self, expression: &str) -> Result<Vec<Found>> {
        self.ask("query", &[("query", expression)])
    }

    /// What an expression came to between two times, every so many seconds.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub fn query_range(&self, expression: &str, from: f64, to: f64, step: u32) -> Result<Vec<Found>> {
        let (from, to, step) = (format!("{from:.3}"), format!("{to:.3}"), step.to_string());
        self.ask("query_range", &[("query", expression), ("start", &from), ("end", &to), ("step", &step)])
    }

    /// Names of the alerts that fire, with their labels.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn firing(&self) -> Result<Vec<BTreeMap<String, String>>> {
        let found = self.query(r#"ALERTS{alertstate="firing"}"#)?;
        Ok(found.into_iter().map(|found| found.labels).collect())
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Vec<Found>> {
        let mut command = self.namespace.command("curl");
        command.args(["--silent", "--show-error", "--max-time", "10", "--get"]);
        for (name, value) in parameters {
            command.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        let Finished { stdout, stderr, .. } = run(command.arg(format!("http://{ADDRESS}/api/v1/{what}")))?;
        let answer: Value = serde_json::from_str(&stdout).with_context(|| format!("{stdout}{stderr}"))?;
        ensure!(answer["status"] == "success", "{parameters:?}: {}", answer["error"]);
        match answer["data"]["resultType"].as_str() {
            // An expression without series, such as time().
            Some("scalar") => {
                let points = vec![point(&answer["data"]["result"]).context("a point")?];
                Ok(vec![Found { labels: BTreeMap::new(), points }])
            }
            _ => answer["data"]["result"].as_array().context("a result")?.iter().map(found).collect(),
        }
    }
}

/// `prometheus` or `promtool`: what `cargo xtask setup` unpacked, or the one on `PATH`.
///
/// # Errors
/// There is none; the message says how to get it.
pub fn find_prometheus(program: &str) -> Result<PathBuf> {
    let unpacked = target_directory().join("tools/prometheus/usr/bin").join(program);
    let on_path = env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    std::iter::once(unpacked)
        .chain(on_path.map(|directory| directory.join(program)))
        .find(|path| path.is_file())
        .with_context(|| format!("no {program}: run `cargo xtask setup`, or install Prometheus"))
}

/// Runs promtool in a folder.
///
/// # Errors
/// It is missing, or does not start.
pub fn promtool(folder: &Path, arguments: &[&str]) -> Result<Finished> {
    run(Command::new(find_prometheus("promtool")?).current_dir(folder).args(arguments))
}

fn found(value: &Value) -> Result<Found> {
    let labels = serde_json::from_value(value["metric"].clone()).context("labels")?;
    let points = match &value["values"] {
        Value::Array(points) => points.iter().map(point).collect(),
        _ => Some(point(&value["value"]).into_iter().collect()),
    };
    Ok(Found { labels, points: points.context("points")? })
}

fn point(value: &Value) -> Option<(f64, f64)> {
    Some((value[0].as_f64()?, value[1].as_str()?.parse().ok()?))
}
