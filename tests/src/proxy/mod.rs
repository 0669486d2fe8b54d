//! A proxy between a client of HTTP/1.1 and a server, which does on demand what networks and servers do by accident.
//!
//! ```text
//! client ──► Proxy ──► upstream     rules: which of the next requests meet which Fault
//! ```
//!
//! It passes everything on until a rule says otherwise, and counts what it passes. Requests keep their heads, so that
//! signatures stay right. Nothing in it waits for a time: what is late is late until a test says so.
//!
//! ```no_run
//! # use tideline_tests::proxy::{Fault, Proxy};
//! let proxy = Proxy::start("http://127.0.0.1:9000");
//! proxy.next(1, |request| request.is("PUT", "/manifest/"), Fault::LoseAnswer);
//! // The client talks to proxy.url().
//! assert_eq!(proxy.traffic("PUT").requests, 2);
//! ```

mod connection;
mod http;
mod rules;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use self::rules::Number;
pub use self::rules::{Fault, Request};
use self::shared::{Presence, Shared};

/// A proxy on a port of its own. All connections are closed when it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    acceptor: Option<JoinHandle<()>>,
}

/// A rule that was made. It stays when this is dropped.
pub struct Rule {
    shared: Arc<Shared>,
    number: Number,
}

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests whose heads came.
    pub requests: u64,
    /// Bytes of bodies that the client sent.
    pub sent: u64,
    /// Bytes of bodies that it was sent.
    pub received: u64,
}

impl Proxy {
    /// Starts one before the server at this URL, such as `http://127.0.0.1:9000`.
    pub fn start(upstream: &str) -> Proxy {
        let server = upstream.strip_prefix("http://").expect("a URL of http").trim_end_matches('/');
        let shared = Arc::new(Shared::new(server.to_owned()));
        let port = shared.come(0);
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.accept())
        };
        Proxy { shared, port, acceptor: Some(acceptor) }
    }

    /// What the client talks to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes a rule for the next so many requests that match. Of several rules that do, the one that was made first
    /// counts, as long as it lasts.
    pub fn next(
        &self,
        times: usize,
        matching: impl Fn(&Request) -> bool + Send + 'static,
        fault: Fault,
    ) -> Rule {
        let number = self.shared.lock().rules.add(times, Box::new(matching), fault);
        Rule { shared: Arc::clone(&self.shared), number }
    }

    /// Makes a rule for the nth request from now, and those behind it: for so many in all.
    pub fn from_nth(&self, nth: usize, times: usize, fault: Fault) -> Rule {
        let came = AtomicUsize::new(0);
        self.next(times, move |_| came.fetch_add(1, Ordering::Relaxed) + 1 >= nth, fault)
    }

    /// Makes a rule for all requests that match, from now on.
    pub fn all(&self, matching: impl Fn(&Request) -> bool + Send + 'static, fault: Fault) -> Rule {
        self.next(usize::MAX, matching, fault)
    }

    /// Ends all rules, and lets go what waits for one to be released.
    pub fn clear(&self) {
        self.shared.change(|state| state.rules.lift_all());
    }

    /// Nobody listens any more, and connections are closed, until [`Proxy::back`].
    pub fn away(&self) {
        self.shared.leave(Presence::Away, self.port);
    }

    /// Listens again, on the same port.
    pub fn back(&self) {
        self.shared.come(self.port);
    }

    /// What went through with this method, since the start or since it was last forgotten.
    pub fn traffic(&self, method: &str) -> Traffic {
        self.shared.lock().traffic.get(method).copied().unwrap_or_default()
    }

    /// What went through with any method.
    pub fn all_traffic(&self) -> Traffic {
        self.shared.lock().traffic.values().fold(Traffic::default(), |sum, part| Traffic {
            requests: sum.requests + part.requests,
            sent: sum.sent + part.sent,
            received: sum.received + part.received,
        })
    }

    /// The requests whose heads came, in their order.
    pub fn log(&self) -> Vec<Request> {
        self.shared.lock().log.clone()
    }

    /// Begins to count anew, with an empty log.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.log.clear();
        state.traffic.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.leave(Presence::Gone, self.port);
        if let Some(acceptor) = self.acceptor.take() {
            // As for connections.
            let _ = acceptor.join();
        }
        self.shared.join();
    }
}

impl Rule {
    /// To how many requests it was applied so far.
    pub fn applied(&self) -> usize {
        self.shared.lock().rules.applied(self.number)
    }

    /// Waits until it was applied to so many: those that it holds are held by then, and where it is about answers, the
    /// upstream has done what was asked for.
    #[track_caller]
    pub fn wait(&self, times: usize) {
        self.shared.wait_for_applied(self.number, times);
    }

    /// Lets go what it holds; it holds nothing from now on.
    pub fn release(&self) {
        self.shared.change(|state| state.rules.release(self.number));
    }

    /// Ends it for requests that are still to come.
    pub fn lift(&self) {
        self.shared.lock().rules.lift(self.number);
    }
}
