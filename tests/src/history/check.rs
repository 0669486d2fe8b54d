//! Whether a history keeps the rules.

use std::collections::{BTreeMap, HashMap};

use super::{Done, End, Mode, REGISTERS, Register, Registers, Rule, Seen, Transaction, Violation};

/// How much a history has of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Transactions.
    pub transactions: usize,
    /// Reads of all registers.
    pub reads: usize,
    /// Commits that are there.
    pub commits: usize,
    /// Of these, such as were not acknowledged.
    pub unacknowledged: usize,
}

/// Who made a commit.
type Name = (u32, u32);

/// The commits, in order of their LSNs.
struct Commits<'a> {
    /// LSN of the database before the first of them.
    first: u64,
    /// Each with what is known of it.
    order: Vec<&'a Transaction>,
    /// The registers at `first`, and after each commit.
    states: Vec<Registers>,
    violations: Vec<Violation>,
}

/// Compares transactions with the rows of `done`, which are the commits from the one behind `first` on, as they are found
/// at the end. At `first` all registers are 0.
pub fn check(transactions: &[Transaction], done: &[Done], first: u64) -> Result<Tally, Vec<Violation>> {
    let mut commits = Commits {
        first,
        order: Vec::new(),
        states: vec![vec![Register::default(); REGISTERS]],
        violations: Vec::new(),
    };
    commits.replay(transactions, done);
    if commits.violations.is_empty() {
        for transaction in transactions {
            commits.reads_of(transaction);
        }
        commits.real_time(transactions);
        commits.each_connection(transactions);
    }
    if !commits.violations.is_empty() {
        return Err(commits.violations);
    }
    let acknowledged = transactions.iter().filter(|t| matches!(t.end, End::Committed(_))).count();
    Ok(Tally {
        transactions: transactions.len(),
        reads: transactions.iter().map(|t| t.seen.len()).sum(),
        commits: done.len(),
        unacknowledged: done.len() - acknowledged,
    })
}

fn name(transaction: &Transaction) -> Name {
    (transaction.writer, transaction.seq)
}

/// LSN of the snapshot that a transaction had, if it came so far.
fn snapshot(transaction: &Transaction) -> Option<u64> {
    transaction.seen.first().map(|seen| seen.lsn)
}

/// When a transaction ended, if it did.
fn ended(transaction: &Transaction) -> Option<u64> {
    match transaction.end {
        End::Committed(at) | End::Without(at) => Some(at),
        End::Unknown => None,
    }
}

impl<'a> Commits<'a> {
    fn say(&mut self, rule: Rule, text: String) {
        self.violations.push(Violation { rule, text });
    }

    /// Puts the commits in order, and plays them.
    fn replay(&mut self, transactions: &'a [Transaction], done: &[Done]) {
        let known: HashMap<Name, &Transaction> = transactions.iter().map(|t| (name(t), t)).collect();
        let mut rows: Vec<&Done> = done.iter().collect();
        rows.sort_by_key(|row| row.lsn);
        let mut there: BTreeMap<Name, u64> = BTreeMap::new();
        for (expected, row) in (self.first + 1..).zip(rows) {
            let who = (row.writer, row.seq);
            if row.lsn != expected {
                self.say(Rule::OwnLsn, format!("{who:?} is LSN {}, where {expected} comes next", row.lsn));
                return;
            }
            if let Some(before) = there.insert(who, row.lsn) {
                self.say(Rule::OwnLsn, format!("{who:?} is LSN {before} and {}", row.lsn));
                return;
            }
            let Some(transaction) = known.get(&who) else {
                self.say(Rule::Nothing, format!("LSN {} is {who:?}, of whom nothing is known", row.lsn));
                return;
            };
            if transaction.asked.is_none() || matches!(transaction.end, End::Without(_)) {
                self.say(
                    Rule::Nothing,
                    format!("LSN {} is {who:?}, which wasn't committed: {:?}", row.lsn, transaction.end),
                );
            }
            let mut state = self.states.last().expect("the first is there").clone();
            for (&id, &value) in &transaction.writes {
                state[id] = Register { value, writer: row.writer, seq: row.seq };
            }
            self.order.push(transaction);
            self.states.push(state);
        }
        for transaction in transactions {
            if matches!(transaction.end, End::Committed(_)) && !there.contains_key(&name(transaction)) {
                self.say(
                    Rule::Acknowledged,
                    format!("{:?} was acknowledged, and isn't there", name(transaction)),
                );
            }
        }
        for at in 0..self.order.len() {
            let (transaction, lsn) = (self.order[at], self.first + 1 + at as u64);
            if snapshot(transaction) != Some(lsn - 1) {
                let text = format!(
                    "LSN {lsn} is {:?}, which read LSN {:?}",
                    name(transaction),
                    snapshot(transaction)
                );
                self.say(Rule::FirstCommitter, text);
            }
        }
    }

    /// The registers at an LSN.
    fn state(&self, lsn: u64) -> Option<&Registers> {
        self.states.get(usize::try_from(lsn.checked_sub(self.first)?).ok()?)
    }

    /// What a transaction saw, by itself.
    fn reads_of(&mut self, transaction: &Transaction) {
        let who = name(transaction);
        let Some(first) = transaction.seen.first() else { return };
        for seen in &transaction.seen {
            let Some(state) = self.state(seen.lsn).cloned() else {
                self.say(Rule::Snapshot, format!("{who:?} read LSN {}, which there isn't", seen.lsn));
                continue;
            };
            let mut expected = state;
            if seen.own {
                for (&id, &value) in &transaction.writes {
                    expected[id] = Register { value, writer: who.0, seq: who.1 };
                }
            }
            if let Some(id) = (0..REGISTERS).find(|&id| seen.registers[id] != expected[id]) {
                let rule = if seen.own { Rule::OwnWrites } else { Rule::Snapshot };
                self.say(rule, difference(who, seen, id, expected[id]));
            }
            if seen.lsn != first.lsn || !seen.own && seen.registers != first.registers {
                self.say(Rule::Repeatable, format!("{who:?} read LSN {} and then {}", first.lsn, seen.lsn));
            }
            if let Some(at) = usize::try_from(seen.lsn - self.first).ok().and_then(|n| n.checked_sub(1)) {
                let commit = self.order[at];
                if commit.asked.is_some_and(|asked| asked > seen.at) {
                    let text = format!("{who:?} saw LSN {} before {:?} asked for it", seen.lsn, name(commit));
                    self.say(Rule::Future, text);
                }
            }
        }
    }

    /// What a transaction saw, against what others had been told before it began.
    fn real_time(&mut self, transactions: &[Transaction]) {
        let mut told: Vec<(u64, u64, Name, Rule)> = Vec::new();
        for transaction in transactions {
            let Some(lsn) = snapshot(transaction) else { continue };
            match transaction.mode {
                Mode::Deferred => {
                    let seen = transaction.seen.iter();
                    told.extend(seen.map(|seen| (seen.at, seen.lsn, name(transaction), Rule::Visible)));
                }
                Mode::Writing => {
                    told.extend(ended(transaction).map(|at| (at, lsn, name(transaction), Rule::Visible)));
                }
            }
        }
        for (transaction, lsn) in self.order.iter().zip(self.first + 1..) {
            told.extend(ended(transaction).map(|at| (at, lsn, name(transaction), Rule::Recent)));
        }
        told.sort_unstable_by_key(|t| t.0);
        let mut begun: Vec<&Transaction> = transactions.iter().filter(|t| !t.seen.is_empty()).collect();
        begun.sort_unstable_by_key(|t| t.begun);
        let mut told = told.into_iter().peekable();
        let mut newest = [(Rule::Recent, 0, (0, 0)), (Rule::Visible, 0, (0, 0))];
        for transaction in begun {
            while let Some((_, lsn, who, rule)) = told.next_if(|told| told.0 < transaction.begun) {
                let newest = newest.iter_mut().find(|n| n.0 == rule).expect("one of the two");
                if lsn > newest.1 {
                    *newest = (rule, lsn, who);
                }
            }
            let lsn = snapshot(transaction).expect("it has seen something");
            for (rule, least, who) in newest {
                if lsn < least {
                    let text = format!(
                        "{:?} began after {who:?} was told of LSN {least}, and read LSN {lsn}",
                        name(transaction)
                    );
                    self.say(rule, text);
                }
            }
        }
        // From the newest back: none was acknowledged before one below it was asked for.
        let mut latest: Option<(u64, Name)> = None;
        for at in 0..self.order.len() {
            let transaction = self.order[at];
            if let (End::Committed(end), Some((asked, who))) = (transaction.end, latest) {
                if end < asked {
                    let text = format!(
                        "{:?} is LSN {}, and was acknowledged before {who:?} below it was asked for",
                        name(transaction),
                        self.first + 1 + at as u64
                    );
                    self.say(Rule::Order, text);
                }
            }
            if let Some(asked) = transaction.asked.filter(|&asked| latest.is_none_or(|l| l.0 < asked)) {
                latest = Some((asked, name(transaction)));
            }
        }
    }

    /// What the transactions of each connection saw, one after the other.
    fn each_connection(&mut self, transactions: &[Transaction]) {
        let lsns: HashMap<Name, u64> =
            self.order.iter().zip(self.first + 1..).map(|(t, lsn)| (name(t), lsn)).collect();
        let mut by_writer: BTreeMap<u32, Vec<&Transaction>> = BTreeMap::new();
        for transaction in transactions {
            by_writer.entry(transaction.writer).or_default().push(transaction);
        }
        for history in by_writer.values_mut() {
            history.sort_unstable_by_key(|t| t.seq);
            let (mut read, mut wrote) = (0, 0);
            for transaction in history.iter() {
                let Some(lsn) = snapshot(transaction) else { continue };
                if lsn < read {
                    self.say(Rule::Monotonic, format!("{:?} read LSN {lsn} after {read}", name(transaction)));
                }
                if lsn < wrote {
                    let text = format!(
                        "{:?} read LSN {lsn} after its connection's commit {wrote}",
                        name(transaction)
                    );
                    self.say(Rule::ReadYourWrites, text);
                }
                read = read.max(lsn);
                wrote = wrote.max(lsns.get(&name(transaction)).copied().unwrap_or(0));
            }
        }
    }
}

fn difference(who: Name, seen: &Seen, id: usize, expected: Register) -> String {
    let found = seen.registers[id];
    format!("{who:?} at LSN {} found {found:?} in register {id}, which held {expected:?}", seen.lsn)
}
