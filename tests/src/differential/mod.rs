//! The same SQL on stock SQLite and on Tideline, side by side, and what both say compared.
//!
//! An `Author` writes steps at random; a `Play` does each on both sides, in one thread, so that everything is
//! decided by the seed. Rows, codes, messages, counts and the state of the transaction are the same after each step,
//! and so is all that the databases hold at the end, down to the pages that the b-trees take. When something differs,
//! the steps are played again with some left out, for as long as it still does.
//!
//! Where Tideline deliberately differs, a `Step` has a text for either side, or says that its rows
//! aren't compared; the reasons are there.

mod answer;
mod author;
mod connection;
mod dump;
mod play;
mod reading;
mod settings;
mod shrink;
mod side;
mod step;
mod table;
mod value;
mod world;
mod writing;

use self::author::Author;
use self::play::Play;
use self::step::{Rest, Step};

pub use self::play::Tally;

/// Plays so many steps of this seed.
///
/// # Panics
/// With the shortest steps that were found where the sides differ.
pub fn play(seed: u64, steps: usize) -> Tally {
    let (mut author, setting) = Author::new(seed);
    let mut done: Vec<Step> = Vec::with_capacity(steps);
    let found = |difference: play::Difference, done: &[Step]| -> ! {
        println!("seed {seed}: {}", difference.text);
        let shrunk = shrink::shrink(&setting, done);
        panic!("seed {seed}, step {}: {}\n\nIn short:\n{shrunk}", done.len(), difference.text);
    };
    let mut play = match Play::new(&setting) {
        Ok(play) => play,
        Err(difference) => found(difference, &[]),
    };
    for at in 0..=steps {
        let written =
            if at < steps { author.write() } else { (Step::Rest(Rest::Leave), world::Change::None) };
        done.push(written.0.clone());
        match play.step(&written.0) {
            Ok(answer) => author.learn(written, answer.as_ref()),
            Err(difference) => {
                drop(play);
                found(difference, &done)
            }
        }
    }
    play.tally()
}

#[cfg(test)]
mod tests {
    use super::shrink::{replay, shrink};
    use super::step::{Compare, Kind, Rest, Setting, Step};

    fn sql(sql: &str, stock: Option<&str>) -> Step {
        let stock = stock.map(str::to_owned);
        Step::Sql { at: 0, sql: sql.to_owned(), stock, compare: Compare::All, most: None }
    }

    #[test]
    fn what_one_side_alone_has_done_is_found_and_told_in_short() {
        let setting = Setting {
            kind: Kind::Wal,
            shared: false,
            new: "PRAGMA page_size = 512; PRAGMA user_version = 1".to_owned(),
            adopt: true,
        };
        let mut steps = vec![Step::Open { at: 0, file: 0, read_only: false }];
        steps.push(sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", None));
        steps.extend((0..8).map(|n| sql(&format!("INSERT INTO t(v) VALUES ({n})"), None)));
        assert!(replay(&setting, &steps).is_none(), "so far they have done the same");
        // All that an application is told of it is the same.
        steps.push(sql("UPDATE t SET v = 7 WHERE id = 2", Some("UPDATE t SET v = 8 WHERE id = 2")));
        let looks = [Step::Ship { file: 0 }, Step::Rest(Rest::Leave), sql("SELECT * FROM t", None)];
        for look in looks {
            let looked = [&steps[..], &[look]].concat();
            assert!(replay(&setting, &looked).is_some_and(|(at, _)| at == steps.len()));
        }
        steps.push(Step::Dump { at: 0, schema: "main".to_owned() });
        let text = shrink(&setting, &steps);
        let kept = text.lines().filter(|line| line.starts_with("0: ")).collect::<Vec<_>>();
        // Two rows are needed, so that one of them has number 2.
        assert!(kept.len() == 6 && kept[4].contains("SET v = 7"), "{text}");
    }
}
