//! What is to be done with which requests.

/// The first lines of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// As it was sent: what stands for an octet stays that.
    pub path: String,
    /// What follows a `?`, or nothing.
    pub query: String,
}

impl Request {
    /// The one with this method, and what it asks for.
    pub(super) fn new(method: &str, target: &str) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request { method: method.to_owned(), path: path.to_owned(), query: query.to_owned() }
    }

    /// Has it this method, and this text in its path?
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

/// What happens to a request. Numbers of bytes count the head as well, but in [`Fault::Truncate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// The connection is closed when the head of the request is there, and nobody else sees it. See
    /// [`Proxy::away`](super::Proxy::away) for nobody listening at all.
    Refuse,
    /// No answer comes, and nobody else sees the request, until the proxy is dropped.
    Stall,
    /// The connection is closed when so many bytes of the request are there; the upstream gets those.
    CutRequest(usize),
    /// The connection is closed behind so many bytes of the answer.
    CutAnswer(usize),
    /// So many bytes of the answer's body come of those that it announces.
    Truncate(usize),
    /// The answer is 500, and the upstream doesn't see the request.
    Error,
    /// The answer is 503, with the error `SlowDown` of S3, and the upstream doesn't see the request.
    SlowDown,
    /// The upstream does what is asked for, and the connection is closed without an answer.
    LoseAnswer,
    /// The upstream does what is asked for, and the answer is 500.
    SpoilAnswer,
    /// The request waits until the rule is released, and passes then.
    Hold,
    /// The answer waits until the rule is released.
    HoldAnswer,
    /// The answer is what the upstream last said to a GET of the same; one that it was never asked passes. So time
    /// stands still for the paths of this rule, from when it is made.
    Stale,
}

impl Fault {
    /// Does the upstream answer before it?
    pub(super) fn is_behind(self) -> bool {
        matches!(
            self,
            Fault::CutAnswer(_)
                | Fault::Truncate(_)
                | Fault::LoseAnswer
                | Fault::SpoilAnswer
                | Fault::HoldAnswer
        )
    }
}

/// Which requests a rule is for.
type Matching = Box<dyn Fn(&Request) -> bool + Send>;

/// All that were made, in their order.
#[derive(Default)]
pub struct Rules {
    rules: Vec<State>,
}

struct State {
    matching: Matching,
    fault: Fault,
    /// For how many requests more.
    left: usize,
    applied: usize,
    released: bool,
}

/// Position of a rule among all.
pub type Number = usize;

impl Rules {
    /// Adds one for the next so many requests.
    pub fn add(&mut self, times: usize, matching: Matching, fault: Fault) -> Number {
        self.rules.push(State { matching, fault, left: times, applied: 0, released: false });
        self.rules.len() - 1
    }

    /// The first that is for a request, which it is used up for.
    pub fn take(&mut self, request: &Request) -> Option<(Number, Fault)> {
        let mut rules = self.rules.iter_mut().enumerate();
        let (number, rule) = rules.find(|(_, rule)| rule.left > 0 && (rule.matching)(request))?;
        rule.left -= 1;
        Some((number, rule.fault))
    }

    /// Notes that a request, or its answer, has come to where a rule acts.
    pub fn apply(&mut self, rule: Number) {
        self.rules[rule].applied += 1;
    }

    /// To how many it was applied so far.
    pub fn applied(&self, rule: Number) -> usize {
        self.rules[rule].applied
    }

    /// Lets go what waits.
    pub fn release(&mut self, rule: Number) {
        self.rules[rule].released = true;
    }

    /// Is there nothing to wait for?
    pub fn released(&self, rule: Number) -> bool {
        self.rules[rule].released
    }

    /// It is for no request any more.
    pub fn lift(&mut self, rule: Number) {
        self.rules[rule].left = 0;
    }

    /// All of them are for no request any more, and nothing waits.
    pub fn lift_all(&mut self) {
        for rule in 0..self.rules.len() {
            self.lift(rule);
            self.release(rule);
        }
    }
}
