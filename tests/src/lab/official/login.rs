//! Logging in as a browser does, through the servers' embedded identity provider (authorization code with PKCE, RFC 7636):
//! official servers before 0.70.5 give no token with an account.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab::command::{Finished, run};
use crate::lab::namespace::Namespace;

/// The official client's own name and place to return to; nobody listens there, its address tells the code.
const CLIENT: &str = "client_id=netbird-cli";
const RETURN: &str = "redirect_uri=http://localhost:53000/";
/// Of method `plain`: nobody else is on this wire.
const VERIFIER: &str = "a-verifier-for-servers-that-live-as-long-as-a-test";

/// An identity token.
///
/// # Errors
/// The servers refuse, or lead another way than to a form and back.
pub(super) fn log_in(namespace: &Namespace, server: SocketAddr, email: &str, password: &str) -> Result<String> {
    let provider = format!("http://{server}/oauth2");
    let challenge = format!("code_challenge={VERIFIER}");
    let asked = ["response_type=code", "scope=openid profile email", "state=lab", "code_challenge_method=plain"];
    let mut ask = vec!["--get", "--location", "--output", "/dev/null", "--write-out", "%{url_effective}"];
    for field in [&[CLIENT, RETURN, &challenge], &asked[..]].concat() {
        ask.extend(["--data-urlencode", field]);
    }
    let form = curl(namespace, &ask, &format!("{provider}/auth"))?;
    let (login, password) = (format!("login={email}"), format!("password={password}"));
    let fill = ["--output", "/dev/null", "--write-out", "%{redirect_url}"];
    let sent = ["--data-urlencode", &login, "--data-urlencode", &password];
    let back = curl(namespace, &[fill, sent].concat(), &form)?;
    let code =
        back.split(['?', '&']).find(|part| part.starts_with("code=")).with_context(|| format!("code: {back}"))?;
    let verifier = format!("code_verifier={VERIFIER}");
    let trade = ["--data", "grant_type=authorization_code", "--data", CLIENT, "--data", code, "--data", &verifier];
    let answer = curl(namespace, &[&trade[..], &["--data-urlencode", RETURN]].concat(), &format!("{provider}/token"))?;
    let answer: Value = serde_json::from_str(&answer).context(answer)?;
    Ok(answer["id_token"].as_str().context("id_token")?.to_owned())
}

fn curl(namespace: &Namespace, arguments: &[&str], url: &str) -> Result<String> {
    let mut command = namespace.command("curl");
    let Finished { status, stdout, stderr } =
        run(command.args(["--silent", "--show-error", "--fail", "--max-time", "20"]).args(arguments).arg(url))?;
    ensure!(status.success(), "{url}: {stderr}");
    Ok(stdout)
}
