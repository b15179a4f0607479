//! Connections to servers on loopback.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use peer_core::reach::{Failure, Step};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A name that the resolver refuses by itself: no question goes out.
const UNRESOLVABLE: &str = "labels-of-names-have-at-most-63-bytes-and-this-one-has-got-65-ones";

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

fn target(tls: bool, host: &str, port: u16) -> Target {
    Target { tls, host: host.into(), port, fallback: None }
}

/// Says hello and gives back what comes.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.write_all(b"hello").await?;
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn talk(mut stream: Stream) {
    let mut bytes = [0; 9];
    stream.write_all(b"ping").await.expect("open");
    stream.flush().await.expect("open");
    stream.read_exact(&mut bytes).await.expect("an answer");
    assert_eq!(&bytes, b"helloping");
}

/// A TLS server for `localhost` and `server.test`, and the file of the authority that signed its certificate.
fn tls_server(dir: &tempfile::TempDir, protocol: &[u8]) -> (TlsAcceptor, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&ca_key).expect("a certificate");
    let path = dir.path().join("ca.pem");
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(ca.der()));
    std::fs::write(&path, pem).expect("a file");
    let key = KeyPair::generate().expect("a key");
    let issuer = Issuer::new(params, ca_key);
    let leaf = CertificateParams::new(vec!["localhost".into(), "server.test".into()])
        .expect("a name")
        .signed_by(&key, &issuer);
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let chain = vec![leaf.expect("a certificate").der().clone()];
    let mut config = builder.with_no_client_auth().with_single_cert(chain, private).expect("a certificate and its key");
    config.alpn_protocols = vec![protocol.to_vec()];
    (TlsAcceptor::from(Arc::new(config)), path)
}

fn connector(ca_files: Vec<PathBuf>, proxy: Proxy) -> Connector {
    Connector::new(&Config { ca_files, proxy, timeout: Duration::from_secs(10) }).expect("settings")
}

fn proxy_at(port: u16, userinfo: &str) -> Proxy {
    let url = format!("http://{userinfo}127.0.0.1:{port}");
    Proxy::from_lookup(|name| (name == "HTTPS_PROXY").then(|| url.clone())).expect("a URL")
}

/// Answers one CONNECT. With the right answer come the first bytes of the server, as when they are quick.
async fn proxy_once(listener: TcpListener, server: u16, authorization: Option<&str>) -> io::Result<String> {
    let (mut client, _) = listener.accept().await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    if authorization.is_some_and(|value| !request.to_ascii_lowercase().contains(&value.to_ascii_lowercase())) {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").await?;
        return Ok(request);
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    let mut early = [0; 5];
    server.read_exact(&mut early).await?;
    client.write_all(&[b"HTTP/1.1 200 OK\r\n\r\n", &early[..]].concat()).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(request)
}

#[tokio::test]
async fn without_tls_it_is_tcp() {
    let (listener, port) = listener().await;
    let server = tokio::spawn(async move { serve(listener.accept().await?.0).await });
    let stream = connector(Vec::new(), Proxy::none()).connect(&target(false, "127.0.0.1", port), Alpn::H2).await;
    let stream = stream.expect("a connection");
    assert!(!stream.is_tls() && !stream.is_proxied() && stream.alpn().is_none());
    assert!(stream.tcp().nodelay().expect("a socket"), "small messages must not wait");
    talk(stream).await;
    server.await.expect("no panic").expect("served");
}

#[tokio::test]
async fn a_private_authority_is_trusted_by_its_file_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (acceptor, ca) = tls_server(&dir, b"h2");
    let (listener, port) = listener().await;
    let server = tokio::spawn(async move {
        _ = acceptor.accept(listener.accept().await?.0).await;
        serve(acceptor.accept(listener.accept().await?.0).await?).await
    });
    let target = target(true, "localhost", port);
    let refused =
        connector(Vec::new(), Proxy::none()).connect(&target, Alpn::H2).await.expect_err("an unknown authority");
    assert!(matches!(refused, Error::Tls { .. }), "{refused}");
    assert_eq!(refused.step(), Step::Tls);
    assert!(refused.remedy().is_some_and(|remedy| remedy.contains("NB_CA_FILE")), "{refused:?}");
    let stream = connector(vec![ca], Proxy::none()).connect(&target, Alpn::H2).await.expect("a connection");
    assert_eq!(stream.alpn(), Some(&b"h2"[..]));
    talk(stream).await;
    server.await.expect("no panic").expect("served");
}

#[tokio::test]
async fn the_certificate_must_be_of_the_host() {
    let dir = tempfile::tempdir().expect("a directory");
    let (acceptor, ca) = tls_server(&dir, b"http/1.1");
    let (listener, port) = listener().await;
    tokio::spawn(async move { acceptor.accept(listener.accept().await?.0).await });
    let result = connector(vec![ca], Proxy::none()).connect(&target(true, "127.0.0.1", port), Alpn::Http1).await;
    let error = result.expect_err("another name");
    assert!(error.remedy().is_some_and(|remedy| remedy.contains("as its certificate does")), "{error:?}");
}

#[tokio::test]
async fn a_proxy_is_asked_and_nothing_early_is_lost() {
    let (listener, port) = listener().await;
    let (proxy, proxy_port) = self::listener().await;
    let server = tokio::spawn(async move { serve(listener.accept().await?.0).await });
    let proxied = tokio::spawn(proxy_once(proxy, port, Some("authorization: basic dXNlcjpwYXNz")));
    let connector = connector(Vec::new(), proxy_at(proxy_port, "user:pass@"));
    let stream = connector.connect(&target(false, "192.0.2.1", 8080), Alpn::H2).await.expect("a connection");
    assert!(stream.is_proxied());
    talk(stream).await;
    server.await.expect("no panic").expect("served");
    let request = proxied.await.expect("no panic").expect("served");
    assert!(request.starts_with("CONNECT 192.0.2.1:8080 HTTP/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn tls_goes_through_a_proxy() {
    let dir = tempfile::tempdir().expect("a directory");
    let (acceptor, ca) = tls_server(&dir, b"http/1.1");
    let (listener, port) = listener().await;
    let (proxy, proxy_port) = self::listener().await;
    let server = tokio::spawn(async move { serve(acceptor.accept(listener.accept().await?.0).await?).await });
    let relayed = tokio::spawn(async move {
        let (mut client, _) = proxy.accept().await?;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(client.read_u8().await?);
        }
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    });
    let target = target(true, "server.test", port);
    let proxy = proxy_at(proxy_port, "");
    let connector = connector(vec![ca], proxy);
    let stream = connector.connect(&target, Alpn::Http1).await.expect("a connection");
    talk(stream).await;
    server.await.expect("no panic").expect("served");
    relayed.await.expect("no panic").expect("relayed");
}

#[tokio::test]
async fn a_proxy_that_refuses_says_why() {
    let (proxy, proxy_port) = listener().await;
    tokio::spawn(proxy_once(proxy, 0, Some("authorization: basic nothing")));
    let result =
        connector(Vec::new(), proxy_at(proxy_port, "")).connect(&target(true, "192.0.2.1", 443), Alpn::H2).await;
    let error = result.expect_err("no credentials");
    assert!(error.to_string().contains("407") && error.to_string().contains("wants user and password"), "{error}");
    assert_eq!(
        (error.step(), error.remedy().is_some_and(|remedy| remedy.contains("HTTPS_PROXY"))),
        (Step::Proxy, true)
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_the_credentials_says_so() {
    let (proxy, proxy_port) = listener().await;
    tokio::spawn(proxy_once(proxy, 0, Some("authorization: basic nothing")));
    let connector = connector(Vec::new(), proxy_at(proxy_port, "user:wrong@"));
    let error = connector.connect(&target(true, "192.0.2.1", 443), Alpn::H2).await.expect_err("wrong credentials");
    assert!(matches!(error, Error::Proxy { credentials: Credentials::Refused, .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("407") && text.contains("refuses the user and password") && !text.contains("wrong"),
        "{text}"
    );
    assert!(error.remedy().is_some_and(|remedy| remedy.starts_with("correct user and password")), "{error:?}");
}

#[tokio::test]
async fn a_port_that_nobody_listens_at_is_a_refused_connection() {
    let (listener, port) = listener().await;
    drop(listener);
    let result = connector(Vec::new(), Proxy::none()).connect(&target(false, "127.0.0.1", port), Alpn::H2).await;
    let error = result.expect_err("nobody there");
    assert_eq!(error.step(), Step::Connect);
    assert_eq!(error.to_string(), format!("cannot reach 127.0.0.1:{port}: Connection refused (os error 111)"));
    assert!(error.remedy().is_some_and(|remedy| remedy.contains("listens")), "{error:?}");
}

#[tokio::test]
async fn those_who_know_only_io_errors_find_the_failure_inside() {
    let result = connector(Vec::new(), Proxy::none()).connect(&target(false, UNRESOLVABLE, 1), Alpn::H2).await;
    let error = io::Error::from(result.expect_err("no address"));
    let failure = error.get_ref().and_then(|error| error.downcast_ref::<Failure>()).expect("a failure");
    assert_eq!((failure.step, &failure.error), (Step::Name, &error.to_string()));
}

#[tokio::test]
async fn a_name_without_address_uses_the_fallback() {
    let (listener, port) = listener().await;
    let server = tokio::spawn(async move { serve(listener.accept().await?.0).await });
    let connector = connector(Vec::new(), Proxy::none());
    let mut target = target(false, UNRESOLVABLE, port);
    let error = connector.connect(&target, Alpn::Http1).await.expect_err("no address");
    assert!(matches!(error, Error::Name { .. }), "{error:?}");
    target.fallback = Some(Ipv4Addr::LOCALHOST.into());
    talk(connector.connect(&target, Alpn::Http1).await.expect("a connection")).await;
    server.await.expect("no panic").expect("served");
}

#[tokio::test]
async fn silence_ends_in_time() {
    let (listener, port) = listener().await;
    let config = Config { timeout: Duration::from_millis(50), ..Config::default() };
    let connector = Connector::new(&config).expect("settings");
    let result = connector.connect(&target(true, "127.0.0.1", port), Alpn::H2).await;
    assert!(matches!(result, Err(Error::Timeout { step: Step::Tls, .. })), "{result:?}");
    drop(listener);
}

#[test]
fn ca_files_must_hold_certificates() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("empty.pem");
    std::fs::write(&path, "no certificate").expect("a file");
    for path in [path, dir.path().join("missing.pem")] {
        let error = Connector::new(&Config { ca_files: vec![path], ..Config::default() }).expect_err("no certificate");
        assert!(matches!(error, Error::CaFile { .. }) && error.to_string().contains(".pem"), "{error}");
    }
}

#[test]
fn urls_name_servers() {
    for (url, expected) in [
        ("https://api.example", Some((true, "api.example", 443))),
        ("http://api.example", Some((false, "api.example", 80))),
        ("https://[fd00::1]:33073/x", Some((true, "fd00::1", 33073))),
        ("rel://api.example", None),
        ("api.example:80", None),
        ("https://api.example:0", None),
    ] {
        let found = Target::from_uri(&url.parse().expect("a URI"));
        match expected {
            Some((tls, host, port)) => assert_eq!(found.expect(url), target(tls, host, port)),
            None => assert!(matches!(found, Err(Error::Target { .. })), "{url}"),
        }
    }
    assert_eq!(target(true, "fd00::1", 1).to_string(), "[fd00::1]:1");
}
