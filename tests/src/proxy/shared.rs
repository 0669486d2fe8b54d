//! What the threads of a proxy share.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::Traffic;
use super::connection::Connection;
use super::http::Message;
use super::rules::{Fault, Number, Request, Rules};
use crate::process::patience;

/// All of it.
pub struct Shared {
    /// Host and port.
    pub upstream: String,
    state: Mutex<State>,
    changed: Condvar,
}

/// A request, and the range that is asked for.
pub type Asked = (Request, Option<String>);

#[derive(Default)]
pub struct State {
    pub rules: Rules,
    pub log: Vec<Request>,
    pub traffic: HashMap<String, Traffic>,
    /// The upstream's last answers to GETs.
    answers: HashMap<Asked, Message>,
    /// Both ends of what is under way, which are closed to wake who waits there.
    streams: HashMap<u64, TcpStream>,
    last_stream: u64,
    connections: Vec<JoinHandle<()>>,
    /// For the acceptor, who takes it.
    listener: Option<TcpListener>,
    presence: Presence,
    /// Does anybody listen still?
    listening: bool,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    #[default]
    Away,
    Here,
    /// For ever.
    Gone,
}

impl Shared {
    /// Before a server.
    pub fn new(upstream: String) -> Shared {
        Shared { upstream, state: Mutex::default(), changed: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something that somebody may wait for.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let answer = change(&mut self.lock());
        self.changed.notify_all();
        answer
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes connections until the proxy is gone.
    pub fn accept(self: &Arc<Self>) {
        while let Some(listener) = self.listener() {
            loop {
                let taken = listener.accept();
                let mut state = self.lock();
                if state.presence != Presence::Here {
                    break;
                }
                let Ok((client, _)) = taken else { continue };
                let shared = Arc::clone(self);
                // A client that goes, or that is cut off, concerns nobody here.
                let serve = move || drop(Connection::serve(&shared, client));
                state.connections.retain(|connection| !connection.is_finished());
                state.connections.push(std::thread::spawn(serve));
            }
            drop(listener);
            self.change(|state| state.listening = false);
        }
    }

    /// Waits for one to be there.
    fn listener(&self) -> Option<TcpListener> {
        let mut state = self.lock();
        loop {
            if state.presence == Presence::Gone {
                return None;
            }
            if let Some(listener) = state.listener.take() {
                return Some(listener);
            }
            state = self.wait(state);
        }
    }

    /// Listens on a port, or on any for 0; gives the port.
    pub fn come(&self, port: u16) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a port of this machine");
        let port = listener.local_addr().expect("its port").port();
        self.change(|state| {
            state.listener = Some(listener);
            state.listening = true;
            state.presence = Presence::Here;
        });
        port
    }

    /// Closes all connections, and waits until nobody listens on the port.
    pub fn leave(&self, presence: Presence, port: u16) {
        self.change(|state| {
            state.presence = presence;
            state.listener = None;
            state.streams.values().for_each(close);
        });
        // Wakes the acceptor. None may be there.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let mut state = self.lock();
        while state.listening {
            state = self.wait(state);
        }
    }

    /// Waits for the threads of all connections, which must have been closed.
    pub fn join(&self) {
        let connections = std::mem::take(&mut self.lock().connections);
        for connection in connections {
            // One that panicked has said so; a test that ends needn't panic twice.
            let _ = connection.join();
        }
    }

    /// Has a stream closed when the proxy goes, or is away.
    pub fn keep(self: &Arc<Self>, stream: &TcpStream) -> io::Result<Kept> {
        let copy = stream.try_clone()?;
        let mut state = self.lock();
        if state.presence != Presence::Here {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.last_stream += 1;
        let number = state.last_stream;
        state.streams.insert(number, copy);
        Ok(Kept { shared: Arc::clone(self), number })
    }

    /// Counts a request, and says what is to be done with it, by which rule.
    pub fn note(&self, request: &Request) -> (Fault, Option<Number>) {
        self.change(|state| {
            state.log.push(request.clone());
            state.traffic.entry(request.method.clone()).or_default().requests += 1;
            let Some((number, fault)) = state.rules.take(request) else { return (Fault::Pass, None) };
            if !fault.is_behind() {
                state.rules.apply(number);
            }
            (fault, Some(number))
        })
    }

    /// Counts bytes of bodies.
    pub fn count(&self, request: &Request, sent: usize, received: usize) {
        let mut state = self.lock();
        let traffic = state.traffic.entry(request.method.clone()).or_default();
        traffic.sent += sent as u64;
        traffic.received += received as u64;
    }

    /// Notes that a rule that is about answers has one.
    pub fn apply(&self, rule: Number) {
        self.change(|state| state.rules.apply(rule));
    }

    /// Waits until a rule was applied to so many requests.
    #[track_caller]
    pub fn wait_for_applied(&self, rule: Number, times: usize) {
        let deadline = Instant::now() + patience();
        let mut state = self.lock();
        while state.rules.applied(rule) < times {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not so many requests of this rule came; these came: {:?}", state.log);
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a rule is released; false if the connection is to end before.
    pub fn wait_for_release(&self, rule: Number) -> bool {
        let mut state = self.lock();
        while state.presence == Presence::Here && !state.rules.released(rule) {
            state = self.wait(state);
        }
        state.presence == Presence::Here
    }

    /// Waits until the connection is to end.
    pub fn wait_for_end(&self) {
        let mut state = self.lock();
        while state.presence == Presence::Here {
            state = self.wait(state);
        }
    }

    /// Keeps what the upstream answered.
    pub fn remember(&self, asked: Asked, answer: &Message) {
        self.lock().answers.insert(asked, answer.clone());
    }

    /// What it answered.
    pub fn remembered(&self, asked: &Asked) -> Option<Message> {
        self.lock().answers.get(asked).cloned()
    }
}

/// An entry of [`State::streams`].
pub struct Kept {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(stream) = self.shared.lock().streams.remove(&self.number) {
            close(&stream);
        }
    }
}

fn close(stream: &TcpStream) {
    // The other side may have done so.
    let _ = stream.shutdown(Shutdown::Both);
}
