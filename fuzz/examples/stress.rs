use std::panic;
use tideline_fuzz::pages::Rng;
fn main() {
    let mut args = std::env::args().skip(1);
    let target = args.next().unwrap();
    let from: u64 = args.next().unwrap().parse().unwrap();
    let to: u64 = args.next().unwrap().parse().unwrap();
    let run: fn(&[u8]) -> String = match &*target { "receive" => tideline_fuzz::receive::run, _ => tideline_fuzz::open::run };
    let mut seen = std::collections::BTreeMap::<String, (u64, usize)>::new();
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    let last = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let sink = last.clone();
    panic::set_hook(Box::new(move |info| { if std::env::var("V").is_ok() { eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture()); } let _ = std::fs::write("/tmp/stress.msg", info.to_string()); *sink.lock().unwrap() = info.to_string().replace("\n", " "); }));
    let started = std::time::Instant::now();
    for seed in from..to {
        let mut rng = Rng(seed);
        let len = 16 + rng.below(300) as usize;
        let data: Vec<u8> = (0..len).map(|_| if rng.below(3) == 0 { rng.below(4) as u8 } else { rng.next_u64() as u8 }).collect();
        if to == from + 1 { println!("{}", match &*target { "receive" => tideline_fuzz::receive::describe(&data), _ => tideline_fuzz::open::describe(&data)}); }
        if seed % 1 == 0 { std::fs::write("/tmp/stress.at", seed.to_string()).unwrap(); }
        let t = std::time::Instant::now();
        match panic::catch_unwind(|| run(&data)) {
            Ok(o) => *outcomes.entry(o).or_default() += 1,
            Err(_) => { let m = last.lock().unwrap().clone(); let m: String = m.chars().take(400).collect(); seen.entry(m).or_insert((seed, 0)).1 += 1; }
        }
        if t.elapsed().as_secs() > 2 { println!("SLOW seed {seed}: {:?}", t.elapsed()); }
    }
    println!("{:?}, {} outcomes", started.elapsed(), outcomes.len());
    for (m, (seed, n)) in seen { println!("seed {seed} x{n}: {m}"); }
    let mut o: Vec<_> = outcomes.into_iter().collect(); o.sort_by_key(|x| std::cmp::Reverse(x.1));
    for (k, n) in o.into_iter().take(25) { println!("{n} {k}"); }
}
