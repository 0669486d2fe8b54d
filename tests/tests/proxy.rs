//! The proxy that tests of remotes have between them and a store does what it is told, and nothing else.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use tideline_tests::patience;
use tideline_tests::proxy::{Fault, Proxy, Request, Traffic};

/// A server that keeps what is PUT, once under each name, until its process ends. GET answers in chunks, as Ceph does.
#[derive(Clone, Default)]
struct Upstream {
    objects: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    /// Requests that came whole, in their order.
    whole: Arc<Mutex<Vec<String>>>,
    /// What came of another before each connection's end.
    ends: Arc<(Mutex<Vec<Vec<u8>>>, Condvar)>,
}

impl Upstream {
    /// Starts it, with a proxy before it.
    fn start() -> (Upstream, Proxy) {
        let upstream = Upstream::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let proxy = Proxy::start(&format!("http://{}", listener.local_addr().expect("its port")));
        let served = upstream.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let served = served.clone();
                thread::spawn(move || served.serve(client));
            }
        });
        (upstream, proxy)
    }

    fn serve(&self, client: TcpStream) {
        let mut from = BufReader::new(client.try_clone().expect("a second handle"));
        let end = loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && from.read_until(b'\n', &mut head).unwrap_or(0) > 0 {}
            if !head.ends_with(b"\r\n\r\n") {
                break head;
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            let (length, mut body) = (length(&text), Vec::new());
            let _ = (&mut from).take(length).read_to_end(&mut body);
            if body.len() as u64 != length {
                break [head, body].concat();
            }
            // Whoever doesn't want the answer ends the connection.
            let _ = (&client).write_all(&self.answer(&text, body));
        };
        self.ends.0.lock().expect("a lock").push(end);
        self.ends.1.notify_all();
    }

    /// What came before the end of connection `number`.
    fn end(&self, number: usize) -> Vec<u8> {
        let ends = self.ends.0.lock().expect("a lock");
        let missing = |ends: &mut Vec<Vec<u8>>| ends.len() <= number;
        let (ends, _) = self.ends.1.wait_timeout_while(ends, patience(), missing).expect("a lock");
        ends[number].clone()
    }

    fn answer(&self, head: &str, body: Vec<u8>) -> Vec<u8> {
        let (method, rest) = head.split_once(' ').expect("a method");
        let (path, _) = rest.split_once(' ').expect("a path");
        self.whole.lock().expect("a lock").push(format!("{method} {path}"));
        let mut objects = self.objects.lock().expect("a lock");
        let status = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes();
        match (method, objects.get(path)) {
            ("PUT", None) => {
                objects.insert(path.to_owned(), body);
                status("200 OK")
            }
            ("PUT", Some(_)) => status("412 Precondition Failed"),
            ("HEAD", Some(object)) => {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", object.len()).into_bytes()
            }
            ("GET", Some(object)) => {
                let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for chunk in object.chunks(5) {
                    answer.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    answer.extend([chunk, b"\r\n"].concat());
                }
                answer.extend(b"0\r\n\r\n");
                answer
            }
            _ => status("404 Not Found"),
        }
    }

    fn whole(&self) -> Vec<String> {
        self.whole.lock().expect("a lock").clone()
    }
}

/// The length that a head tells.
fn length(head: &str) -> u64 {
    let lower = head.to_ascii_lowercase();
    let line = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    line.map_or(0, |value| value.parse().expect("a number"))
}

/// A client's connection.
struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer: its status, the length it tells, and as much of its body as came.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    length: u64,
    body: String,
}

impl Client {
    fn new(proxy: &Proxy) -> Client {
        let address = proxy.url().strip_prefix("http://").expect("a URL").to_owned();
        let stream = TcpStream::connect(address).expect("a connection");
        // A test that fails doesn't hang.
        stream.set_read_timeout(Some(patience())).expect("a time that can be set");
        Client { stream: BufReader::new(stream) }
    }

    /// Sends a request, as far as anybody takes it.
    fn send(&mut self, method: &str, path: &str, body: &str) {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: it\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = self.stream.get_mut().write_all(format!("{head}{body}").as_bytes());
    }

    /// What comes, if a whole head does.
    fn receive(&mut self) -> Option<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).unwrap_or(0) == 0 {
                return None;
            }
        }
        let length = length(&head);
        let mut body = String::new();
        let _ = (&mut self.stream).take(length).read_to_string(&mut body);
        Some(Answer { status: head.split(' ').nth(1)?.parse().ok()?, length, body })
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Option<Answer> {
        self.send(method, path, body);
        self.receive()
    }
}

/// One request on a connection of its own.
fn ask(proxy: &Proxy, method: &str, path: &str, body: &str) -> Option<Answer> {
    Client::new(proxy).ask(method, path, body)
}

fn status(answer: Option<Answer>) -> u16 {
    answer.expect("an answer").status
}

fn any(_: &Request) -> bool {
    true
}

#[test]
fn without_rules_everything_passes_and_is_counted() {
    let (upstream, proxy) = Upstream::start();
    let mut client = Client::new(&proxy);
    assert_eq!(status(client.ask("PUT", "/b/a", "twelve bytes")), 200);
    assert_eq!(status(client.ask("PUT", "/b/a", "others")), 412);
    let got = Answer { status: 200, length: 12, body: "twelve bytes".into() };
    assert_eq!(status(client.ask("GET", "/b/a?part=1", "")), 404);
    assert_eq!(client.ask("GET", "/b/a", ""), Some(got));
    assert_eq!(proxy.traffic("PUT"), Traffic { requests: 2, sent: 18, received: 0 });
    assert_eq!(proxy.traffic("GET"), Traffic { requests: 2, sent: 0, received: 12 });
    assert_eq!(proxy.all_traffic(), Traffic { requests: 4, sent: 18, received: 12 });
    let log = proxy.log();
    assert!(log[0].is("PUT", "/a") && !log[0].is("GET", "/a") && log[2].query == "part=1");
    assert_eq!(upstream.whole().len(), 4);
    proxy.forget();
    assert_eq!((proxy.all_traffic(), proxy.log().len()), (Traffic::default(), 0));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let (_, proxy) = Upstream::start();
    ask(&proxy, "PUT", "/a", "body");
    let mut client = Client::new(&proxy);
    let mut line = String::new();
    client.send("HEAD", "/a", "");
    while line != "\r\n" {
        line.clear();
        client.stream.read_line(&mut line).expect("a line of the head");
    }
    assert_eq!(status(client.ask("GET", "/a", "")), 200);
}

#[test]
fn a_rule_is_for_the_next_requests_that_match() {
    let (_, proxy) = Upstream::start();
    let rule = proxy.next(2, |request| request.is("PUT", "/manifest/"), Fault::Error);
    let later = proxy.all(|request| request.method == "PUT", Fault::SlowDown);
    assert_eq!(status(ask(&proxy, "GET", "/manifest/1", "")), 404);
    assert_eq!(status(ask(&proxy, "PUT", "/segment/1", "")), 503);
    let told = ask(&proxy, "PUT", "/manifest/1", "").expect("an answer");
    assert!(told.status == 500 && told.body.contains("<Code>InternalError</Code>"), "{told:?}");
    assert_eq!(status(ask(&proxy, "PUT", "/manifest/1", "")), 500);
    assert_eq!((rule.applied(), later.applied()), (2, 1));
    let told = ask(&proxy, "PUT", "/manifest/1", "").expect("an answer");
    assert!(told.status == 503 && told.body.contains("<Code>SlowDown</Code>"), "{told:?}");
    later.lift();
    assert_eq!(status(ask(&proxy, "PUT", "/manifest/1", "")), 200);
    proxy.all(any, Fault::Error);
    proxy.clear();
    assert_eq!(status(ask(&proxy, "GET", "/manifest/1", "")), 200);
}

#[test]
fn refused_is_not_answered_and_not_seen() {
    let (upstream, proxy) = Upstream::start();
    proxy.next(1, any, Fault::Refuse);
    assert_eq!(ask(&proxy, "PUT", "/a", "body"), None);
    assert_eq!(upstream.whole(), [""; 0]);
    assert_eq!(status(ask(&proxy, "PUT", "/a", "body")), 200);
}

#[test]
fn nobody_listens_while_it_is_away() {
    let (_, proxy) = Upstream::start();
    let mut client = Client::new(&proxy);
    assert_eq!(status(client.ask("PUT", "/a", "body")), 200);
    for _ in 0..3 {
        proxy.away();
        assert_eq!(client.ask("GET", "/a", ""), None);
        let address = proxy.url().strip_prefix("http://").expect("a URL").to_owned();
        let refused = TcpStream::connect(address).expect_err("nobody there");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        proxy.back();
        client = Client::new(&proxy);
        assert_eq!(status(client.ask("GET", "/a", "")), 200);
    }
    proxy.away();
}

#[test]
fn what_stalls_ends_with_the_proxy() {
    let (upstream, proxy) = Upstream::start();
    let stalled = proxy.next(1, any, Fault::Stall);
    let held = proxy.next(1, any, Fault::Hold);
    let mut clients = [Client::new(&proxy), Client::new(&proxy)];
    clients[0].send("GET", "/a", "");
    stalled.wait(1);
    clients[1].send("GET", "/a", "");
    held.wait(1);
    // Others go on meanwhile.
    assert_eq!(status(ask(&proxy, "GET", "/b", "")), 404);
    proxy.clear();
    assert_eq!(status(clients[1].receive()), 404);
    drop(proxy);
    assert_eq!(clients[0].receive(), None);
    assert_eq!(upstream.whole(), ["GET /b", "GET /a"]);
}

#[test]
fn a_request_is_cut_at_every_byte() {
    let (upstream, proxy) = Upstream::start();
    let whole = "PUT /a HTTP/1.1\r\nHost: it\r\nContent-Length: 10\r\n\r\n0123456789";
    for bytes in 0..whole.len() {
        proxy.next(1, any, Fault::CutRequest(bytes));
        assert_eq!(ask(&proxy, "PUT", "/a", "0123456789"), None);
        assert_eq!(upstream.end(bytes), whole.as_bytes()[..bytes]);
    }
    assert_eq!(upstream.whole(), [""; 0]);
    // All of it came, but its answer doesn't.
    proxy.next(1, any, Fault::CutRequest(1000));
    assert_eq!(ask(&proxy, "PUT", "/a", "0123456789"), None);
    assert_eq!(upstream.end(whole.len()), b"");
    assert_eq!(upstream.whole(), ["PUT /a"]);
    assert_eq!(proxy.traffic("PUT").sent, (0..=10).sum::<u64>());
}

#[test]
fn an_answer_is_cut_or_shorter_than_it_says() {
    let (_, proxy) = Upstream::start();
    ask(&proxy, "PUT", "/a", "0123456789");
    for bytes in [0, 1, 30] {
        proxy.next(1, any, Fault::CutAnswer(bytes));
        assert_eq!(ask(&proxy, "GET", "/a", ""), None);
    }
    proxy.forget();
    for bytes in [0, 1, 9] {
        proxy.next(1, any, Fault::Truncate(bytes));
        let answer = ask(&proxy, "GET", "/a", "").expect("a head");
        assert_eq!((answer.status, answer.length, answer.body.as_str()), (200, 10, &"0123456789"[..bytes]));
    }
    assert_eq!(proxy.traffic("GET").received, 10);
}

#[test]
fn what_was_done_may_not_be_told() {
    let (upstream, proxy) = Upstream::start();
    proxy.next(1, any, Fault::LoseAnswer);
    proxy.next(1, any, Fault::SpoilAnswer);
    assert_eq!(ask(&proxy, "PUT", "/a", "mine"), None);
    assert_eq!(status(ask(&proxy, "PUT", "/b", "mine")), 500);
    assert_eq!(upstream.whole(), ["PUT /a", "PUT /b"]);
    assert_eq!(status(ask(&proxy, "PUT", "/a", "mine")), 412);
    assert_eq!(status(ask(&proxy, "PUT", "/b", "mine")), 412);
}

#[test]
fn requests_and_answers_change_their_order() {
    let (upstream, proxy) = Upstream::start();
    let mut first = Client::new(&proxy);
    let held = proxy.next(1, any, Fault::Hold);
    first.send("PUT", "/a", "first");
    held.wait(1);
    assert_eq!(status(ask(&proxy, "PUT", "/a", "second")), 200);
    held.release();
    assert_eq!(status(first.receive()), 412);

    let held = proxy.next(1, any, Fault::HoldAnswer);
    first.send("PUT", "/b", "first");
    held.wait(1);
    assert_eq!(status(ask(&proxy, "PUT", "/b", "second")), 412);
    held.release();
    assert_eq!(status(first.receive()), 200);
    assert_eq!(upstream.whole(), ["PUT /a", "PUT /a", "PUT /b", "PUT /b"]);
}

#[test]
fn an_old_answer_comes_again() {
    let (upstream, proxy) = Upstream::start();
    assert_eq!(status(ask(&proxy, "GET", "/a", "")), 404);
    let stale = proxy.all(|request| request.method == "GET", Fault::Stale);
    ask(&proxy, "PUT", "/a", "new");
    assert_eq!(status(ask(&proxy, "GET", "/a", "")), 404);
    // One that wasn't asked for before is as old as its first answer.
    ask(&proxy, "PUT", "/b", "new");
    for _ in 0..2 {
        assert_eq!(ask(&proxy, "GET", "/b", "").expect("an answer").body, "new");
    }
    assert_eq!(upstream.whole(), ["GET /a", "PUT /a", "PUT /b", "GET /b"]);
    stale.lift();
    assert_eq!(ask(&proxy, "GET", "/a", "").expect("an answer").body, "new");
}

#[test]
fn whoever_waits_to_be_told_to_send_a_body_is_told() {
    let (_, proxy) = Upstream::start();
    let mut client = Client::new(&proxy);
    let head = "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.stream.get_mut().write_all(head.as_bytes()).expect("it takes a head");
    let mut told = String::new();
    client.stream.read_line(&mut told).expect("a line");
    assert_eq!(told, "HTTP/1.1 100 Continue\r\n");
    client.stream.read_line(&mut told).expect("a line");
    client.stream.get_mut().write_all(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").expect("it takes a body");
    assert_eq!(status(client.receive()), 200);
    assert_eq!(ask(&proxy, "GET", "/a", "").expect("an answer").body, "abcde");
}
