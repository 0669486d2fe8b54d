//! Histories that break one rule each must be told so.

use std::collections::BTreeMap;

use super::{Done, End, Mode, REGISTERS, Register, Registers, Rule, Seen, Transaction, check, parse};

/// LSN of the database before the first commit.
const FIRST: u64 = 3;

/// A sound history: two connections commit in turn, each twice, and a third one reads between and afterwards.
struct Sample {
    transactions: Vec<Transaction>,
    done: Vec<Done>,
}

/// Transactions of the sample, by index: commits 0, 2, 3 and 4, and reads 1 and 5.
const COMMITS: [usize; 4] = [0, 2, 3, 4];
const BETWEEN: usize = 1;
const LAST: usize = 5;

impl Sample {
    fn new() -> Self {
        let mut sample = Self { transactions: Vec::new(), done: Vec::new() };
        let mut state = vec![Register::default(); REGISTERS];
        sample.commit(&mut state, 1, 1, Mode::Deferred);
        sample.read(&state, 3, 1);
        sample.commit(&mut state, 2, 1, Mode::Writing);
        sample.commit(&mut state, 1, 2, Mode::Deferred);
        sample.commit(&mut state, 2, 2, Mode::Deferred);
        sample.read(&state, 3, 2);
        sample
    }

    fn lsn(&self) -> u64 {
        FIRST + self.done.len() as u64
    }

    /// The n-th transaction has the stamps from 100 n on.
    fn begin(&self, writer: u32, seq: u32, mode: Mode, state: &Registers) -> Transaction {
        let begun = 100 * (1 + self.transactions.len() as u64);
        let seen = |at| Seen { at, lsn: self.lsn(), own: false, registers: state.clone() };
        Transaction {
            writer,
            seq,
            mode,
            begun,
            seen: vec![seen(begun + 10), seen(begun + 20)],
            writes: BTreeMap::new(),
            asked: None,
            end: End::Without(begun + 90),
        }
    }

    fn commit(&mut self, state: &mut Registers, writer: u32, seq: u32, mode: Mode) {
        let mut transaction = self.begin(writer, seq, mode, state);
        for id in [0, writer as usize] {
            let value = state[id].value + 7;
            transaction.writes.insert(id, value);
            state[id] = Register { value, writer, seq };
        }
        let at = transaction.begun;
        transaction.seen.push(Seen { at: at + 30, lsn: self.lsn(), own: true, registers: state.clone() });
        transaction.asked = Some(at + 50);
        transaction.end = End::Committed(at + 90);
        self.done.push(Done { lsn: self.lsn() + 1, writer, seq });
        self.transactions.push(transaction);
    }

    fn read(&mut self, state: &Registers, writer: u32, seq: u32) {
        self.transactions.push(self.begin(writer, seq, Mode::Deferred, state));
    }

    /// Gives a reading transaction the snapshot of another LSN.
    fn look(&mut self, at: usize, lsn: u64) {
        let state = self.state(lsn);
        for seen in &mut self.transactions[at].seen {
            seen.lsn = lsn;
            seen.registers = state.clone();
        }
    }

    fn state(&self, lsn: u64) -> Registers {
        let mut state = vec![Register::default(); REGISTERS];
        for &commit in &COMMITS[..(lsn - FIRST) as usize] {
            let t = &self.transactions[commit];
            for (&id, &value) in &t.writes {
                state[id] = Register { value, writer: t.writer, seq: t.seq };
            }
        }
        state
    }

    fn rules(&self) -> Vec<Rule> {
        let found = check(&self.transactions, &self.done, FIRST).err().unwrap_or_default();
        let mut rules: Vec<Rule> = found.iter().map(|violation| violation.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

/// Whether the sample breaks exactly these rules after a change.
#[track_caller]
fn breaks(rules: &[Rule], change: impl FnOnce(&mut Sample)) {
    let mut sample = Sample::new();
    change(&mut sample);
    assert_eq!(sample.rules(), rules);
}

#[test]
fn a_sound_history_is_sound() {
    let sample = Sample::new();
    let tally = check(&sample.transactions, &sample.done, FIRST).expect("a sound history");
    assert_eq!((tally.transactions, tally.reads, tally.commits, tally.unacknowledged), (6, 16, 4, 0));
}

#[test]
fn a_commit_that_was_not_acknowledged_may_be_there_or_not() {
    breaks(&[], |s| s.transactions[COMMITS[3]].end = End::Unknown);
    breaks(&[], |s| {
        s.transactions[COMMITS[3]].end = End::Unknown;
        s.done.pop();
        s.look(LAST, FIRST + 3);
    });
    breaks(&[Rule::Snapshot], |s| {
        s.transactions[COMMITS[3]].end = End::Unknown;
        s.done.pop();
    });
}

#[test]
fn an_lsn_has_one_commit() {
    breaks(&[Rule::OwnLsn], |s| s.done[2].lsn = FIRST + 2);
    breaks(&[Rule::OwnLsn], |s| s.done[3].lsn += 1);
    breaks(&[Rule::OwnLsn], |s| {
        let again = Done { lsn: FIRST + 5, ..s.done[0] };
        s.done.push(again);
    });
}

#[test]
fn an_acknowledged_commit_stays() {
    breaks(&[Rule::Acknowledged], |s| {
        s.done.pop();
        s.look(LAST, FIRST + 3);
    });
}

#[test]
fn what_ended_without_a_commit_is_not_there() {
    breaks(&[Rule::Nothing], |s| s.transactions[COMMITS[3]].end = End::Without(590));
    breaks(&[Rule::Nothing], |s| {
        s.transactions[COMMITS[3]].end = End::Unknown;
        s.transactions[COMMITS[3]].asked = None;
    });
    breaks(&[Rule::Nothing], |s| s.done.push(Done { lsn: FIRST + 5, writer: 9, seq: 1 }));
}

#[test]
fn a_read_sees_whole_commits() {
    breaks(&[Rule::Snapshot], |s| {
        for seen in &mut s.transactions[LAST].seen {
            seen.registers[1].value += 1;
        }
    });
    // The state of another LSN than it says.
    breaks(&[Rule::Snapshot], |s| {
        let old = s.state(FIRST + 3);
        for seen in &mut s.transactions[LAST].seen {
            seen.registers = old.clone();
        }
    });
    breaks(&[Rule::Snapshot], |s| s.transactions[LAST].seen.iter_mut().for_each(|seen| seen.lsn += 7));
}

#[test]
fn reads_of_a_transaction_agree() {
    breaks(&[Rule::Repeatable], |s| {
        let old = s.state(FIRST + 3);
        let seen = &mut s.transactions[LAST].seen[1];
        (seen.lsn, seen.registers) = (FIRST + 3, old);
    });
}

#[test]
fn a_transaction_sees_its_own_writes() {
    breaks(&[Rule::OwnWrites], |s| {
        let old = s.state(FIRST + 1);
        s.transactions[COMMITS[1]].seen[2].registers = old;
    });
}

#[test]
fn the_first_committer_wins() {
    breaks(&[Rule::FirstCommitter], |s| {
        // It read what the one before it replaced.
        s.look(COMMITS[1], FIRST);
    });
    breaks(&[Rule::FirstCommitter], |s| s.transactions[COMMITS[1]].seen.clear());
}

#[test]
fn a_connection_does_not_go_back_in_time() {
    // While its first read was under way, or it would be seen by what others were told, too.
    breaks(&[Rule::Monotonic], |s| {
        s.look(BETWEEN, FIRST);
        s.transactions[BETWEEN].begun = 1;
        let (early, late) = (s.transactions[LAST].clone(), s.transactions[BETWEEN].clone());
        s.transactions[BETWEEN] = Transaction { seq: 1, ..early };
        s.transactions[LAST] = Transaction { seq: 2, ..late };
    });
}

#[test]
fn a_connection_sees_what_it_committed() {
    breaks(&[Rule::ReadYourWrites], |s| {
        // The reader is the first writer, which didn't hear that its first commit was one.
        s.transactions[COMMITS[0]].end = End::Unknown;
        s.look(BETWEEN, FIRST);
        s.transactions[COMMITS[2]].seq = 3;
        for id in [0, 1] {
            for t in [COMMITS[2], COMMITS[3], LAST] {
                for seen in &mut s.transactions[t].seen {
                    if (seen.registers[id].writer, seen.registers[id].seq) == (1, 2) {
                        seen.registers[id].seq = 3;
                    }
                }
            }
        }
        s.done[2].seq = 3;
        (s.transactions[BETWEEN].writer, s.transactions[BETWEEN].seq) = (1, 2);
    });
}

#[test]
fn what_was_acknowledged_is_seen() {
    breaks(&[Rule::Recent], |s| {
        s.look(BETWEEN, FIRST);
    });
}

#[test]
fn what_others_saw_is_seen() {
    breaks(&[Rule::Visible], |s| {
        // Nobody acknowledged the last commit, but somebody saw it.
        s.transactions[COMMITS[3]].end = End::Unknown;
        let mut late = s.transactions[LAST].clone();
        (late.writer, late.begun) = (4, 700);
        s.transactions.push(late);
        s.look(LAST + 1, FIRST + 3);
    });
    // A writer may see what isn't on the disk yet; others need not, until it has ended.
    breaks(&[], |s| {
        s.transactions[COMMITS[3]].end = End::Unknown;
        s.transactions[LAST].mode = Mode::Writing;
        s.transactions[LAST].end = End::Unknown;
        let mut late = s.transactions[LAST].clone();
        (late.writer, late.begun) = (4, 700);
        s.transactions.push(late);
        s.look(LAST + 1, FIRST + 3);
    });
}

#[test]
fn nothing_is_seen_too_early() {
    breaks(&[Rule::Future], |s| {
        let commit = &mut s.transactions[COMMITS[3]];
        commit.asked = Some(2000);
        commit.end = End::Unknown;
    });
}

#[test]
fn the_order_of_commits_is_that_of_their_acknowledgements() {
    breaks(&[Rule::Order], |s| {
        // Both looked before either was acknowledged.
        s.transactions[COMMITS[2]].asked = Some(595);
        s.transactions[COMMITS[2]].end = End::Committed(599);
        s.transactions[COMMITS[3]].end = End::Committed(592);
        s.transactions[LAST].mode = Mode::Writing;
        for t in [COMMITS[3], LAST] {
            for seen in &mut s.transactions[t].seen {
                seen.at = 700;
            }
        }
    });
}

#[test]
fn a_torn_line_is_left_out() {
    let fields = vec!["5,1,2"; REGISTERS].join(" ");
    let text = format!(
        "begin 10 1 deferred\nseen 20 3 snapshot {fields}\nwrite 0 -7\ncommit 30\ncommitted 40\nbegin 50 2 writing\nseen 6"
    );
    let history = parse(4, &text);
    let [first, second] = &history[..] else { panic!("{history:?}") };
    assert_eq!((first.writer, first.seq, first.mode, first.begun), (4, 1, Mode::Deferred, 10));
    assert_eq!(first.seen[0].registers[5], Register { value: 5, writer: 1, seq: 2 });
    assert_eq!((first.seen[0].at, first.seen[0].lsn, first.seen[0].own), (20, 3, false));
    assert_eq!((first.writes[&0], first.asked, first.end), (-7, Some(30), End::Committed(40)));
    assert_eq!((second.seq, second.mode, second.end), (2, Mode::Writing, End::Unknown));
    assert!(second.seen.is_empty());
}
