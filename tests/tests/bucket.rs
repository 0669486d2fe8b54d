//! The bucket that tests of remotes are given is there, for this process and for hosts, and behind a proxy.

use std::io::{Read, Write};
use std::net::TcpStream;

use tideline_tests::proxy::{Fault, Proxy};
use tideline_tests::{Bucket, Scratch, python};

/// Asks for something without a signature, and gives the status.
fn ask(endpoint: &str, path: &str) -> String {
    let address = endpoint.strip_prefix("http://").expect("a URL of http");
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("it takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).expect("a status").to_owned()
}

#[test]
fn it_is_there_and_a_proxy_may_be_before_it() {
    let Some(bucket) = Bucket::get() else { return };
    let path = format!("/{}", bucket.name());
    let proxy = Proxy::start(bucket.endpoint());
    proxy.next(1, |_| true, Fault::SlowDown);
    assert_eq!(ask(&proxy.url(), &path), "503");
    let endpoints = [Some(proxy.url()), bucket.second_endpoint().map(str::to_owned)];
    for endpoint in endpoints.into_iter().flatten() {
        // moto asks for no signature. Others do, if it is there.
        assert!(["200", "403"].contains(&ask(&endpoint, &path).as_str()));
        assert!(bucket.options(&endpoint).contains(&endpoint));
    }
    assert_ne!(bucket.new_place(), bucket.new_place());
}

#[test]
fn a_host_finds_it() {
    let Some(given) = Bucket::get() else { return };
    let script = r#"
from tide import *
place, options = bucket()
assert place.startswith("s3://") and place != bucket()[0]
print(json.loads(options)["endpoint"], json.loads(bucket("http://proxy")[1])["endpoint"])
"#;
    let output = python(&Scratch::new(), script, &[]);
    let expected = format!("{} http://proxy\n", given.endpoint());
    assert_eq!(output.ok(), expected);
}
