//! The REST interface of official management.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::login::log_in;
use crate::lab::command::{Finished, run};
use crate::lab::namespace::Namespace;

/// An account's owner.
pub struct Api {
    namespace: Namespace,
    server: SocketAddr,
    /// The header; empty at first.
    authorization: String,
}

impl Api {
    pub(crate) fn set_up(namespace: Namespace, server: SocketAddr) -> Result<Self> {
        let mut this = Self { namespace, server, authorization: String::new() };
        let (email, password) = ("owner@mesh.test", "a long password");
        let owner =
            json!({"email": email, "password": password, "name": "Owner", "create_pat": true, "pat_expire_in": 1});
        let answer = this.call("POST", "/api/setup", Some(&owner))?;
        this.authorization = match answer["personal_access_token"].as_str() {
            Some(token) => format!("Authorization: Token {token}"),
            None => format!("Authorization: Bearer {}", log_in(&this.namespace, server, email, password)?),
        };
        Ok(this)
    }

    /// Calls it; the answer's body.
    ///
    /// # Errors
    /// No answer, or another status than 2xx.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("http://{}{path}", self.server);
        let mut command = self.namespace.command("curl");
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--request",
            method,
            "--write-out",
            "\n%{http_code}",
        ]);
        if !self.authorization.is_empty() {
            command.args(["--header", &self.authorization]);
        }
        if let Some(body) = body {
            command.args(["--header", "Content-Type: application/json", "--data", &body.to_string()]);
        }
        let Finished { status, stdout, stderr } = run(command.arg(&url))?;
        ensure!(status.success(), "{method} {path}: {stderr}");
        let (text, code) = stdout.rsplit_once('\n').context("a status code")?;
        ensure!(code.starts_with('2'), "{method} {path}: {code} {text}");
        Ok(if text.trim().is_empty() { Value::Null } else { serde_json::from_str(text)? })
    }

    /// Makes something; its id.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn create(&self, path: &str, body: &Value) -> Result<String> {
        id(&self.call("POST", path, Some(body))?)
    }

    /// A setup key for any number of peers, which get into these groups.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn setup_key(&self, name: &str, ephemeral: bool, groups: &[&str]) -> Result<String> {
        let body = json!({
            "name": name, "type": "reusable", "expires_in": 86400, "auto_groups": groups, "usage_limit": 0,
            "ephemeral": ephemeral, "allow_extra_dns_labels": false,
        });
        Ok(self.call("POST", "/api/setup-keys", Some(&body))?["key"].as_str().context("key")?.to_owned())
    }

    /// Makes a group.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn group(&self, name: &str) -> Result<String> {
        self.create("/api/groups", &json!({"name": name, "peers": []}))
    }

    /// The id of something with this name in a list.
    ///
    /// # Errors
    /// As [`Self::call`]; there is none.
    pub fn find(&self, path: &str, name: &str) -> Result<Value> {
        let list = self.call("GET", path, None)?;
        let found = list.as_array().and_then(|list| list.iter().find(|entry| entry["name"] == name).cloned());
        found.with_context(|| format!("nothing named {name} in {path}: {list}"))
    }
}

/// The id of an entry.
pub(crate) fn id(entry: &Value) -> Result<String> {
    Ok(entry["id"].as_str().with_context(|| format!("no id in {entry}"))?.to_owned())
}
