//! What is `unsafe` here, in every way that it is reached; under miri, too, where a mapping is a copy (`mapping`).

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::*;
use crate::disk::warm::Warm;

/// Bytes that tell where they are.
fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes.chunks_mut(64).zip(1u16..).for_each(|(part, n)| part[..2].copy_from_slice(&n.to_le_bytes()));
    bytes
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn slices_are_what_the_file_holds_up_to_its_last_memory_page() {
    let page = MEMORY_PAGE as usize;
    let bytes = content(21 * page + 1000);
    let file = file_of(&bytes);
    let windows = Windows::new(NonZeroU64::new(MEMORY_PAGE));
    let step = if cfg!(miri) { 3 * page + 512 } else { 512 };
    for offset in (0..bytes.len()).step_by(step) {
        for len in [0, 1, 512, page, 65536] {
            let found = windows.slice(&file, offset as u64, len);
            let readable = bytes.len().next_multiple_of(page);
            assert_eq!(found.is_some(), offset + len + SLICE_SLACK <= readable, "{len} bytes at {offset}");
            if let Some((found, wanted)) = found.zip(bytes.get(offset..offset + len)) {
                assert!(found == wanted, "{len} bytes at {offset}");
            }
        }
    }
    assert!(windows.slice(&file, u64::MAX - 100, 512).is_none());
    assert!(windows.slice(&file, 0, 2 * 65536).is_none(), "longer than any page");
    windows.set_len(&file, 100).unwrap();
    assert!(windows.slice(&file, MEMORY_PAGE, 512).is_none(), "the file is shorter now");
    assert!(Windows::new(None).slice(&file, 0, 1).is_none());
}

#[test]
fn a_window_is_there_when_the_file_has_grown_into_it() {
    let page = MEMORY_PAGE as usize;
    let bytes = content(40 * page);
    let file = file_of(&bytes[..page]);
    let windows = Windows::new(NonZeroU64::new(MEMORY_PAGE));
    let first = windows.slice(&file, 0, 512).unwrap();
    assert!(windows.slice(&file, 30 * MEMORY_PAGE, page).is_none());
    file.write_all_at(&bytes, 0).unwrap();
    assert_eq!(windows.slice(&file, 30 * MEMORY_PAGE, page).unwrap(), &bytes[30 * page..31 * page]);
    assert_eq!(first, &bytes[..512], "a slice stays");
}

#[test]
fn words_are_shared_by_threads_that_sleep_on_them() {
    let count = 64;
    let words = SharedWords::map(&file_of(&vec![0; count * 8]), count).unwrap();
    assert_eq!(words.words().len(), count);
    let last = count - 1;
    words.words()[last].store(1 << 32, Ordering::SeqCst);
    // The low half differs, or the time is over.
    words.wait(last, 7, Duration::from_secs(600));
    words.wait(last, 0, Duration::from_millis(1));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while words.words()[last].load(Ordering::SeqCst) != 5 {
                words.wait(last, 0, Duration::from_secs(600));
            }
        });
        words.words()[last].store(5, Ordering::SeqCst);
        words.wake(last, u32::MAX);
    });
}

#[test]
fn what_is_warm_is_written_without_calls_and_nothing_else_is() {
    let page = MEMORY_PAGE as usize;
    let len = 4 * MEMORY_PAGE;
    let file = file_of(&vec![0; len as usize]);
    let warm = Warm::default();
    assert!(!warm.write(&[1; 8], 0), "cold");
    warm.up(&file, MEMORY_PAGE..2 * MEMORY_PAGE);
    // What is warm already stays.
    warm.up(&file, 0..len);
    let wanted = [vec![0; page + 5], vec![7; page - 5], vec![8; 2 * page]].concat();
    assert!(
        warm.write(&vec![7; page - 5], MEMORY_PAGE + 5) && warm.write(&vec![8; 2 * page], 2 * MEMORY_PAGE)
    );
    assert!(!warm.write(&[9; 8], MEMORY_PAGE - 4), "before what is warm");
    assert!(!warm.write(&[9; 8], 2 * MEMORY_PAGE - 4), "from one part into the next");
    assert!(!warm.write(&[9; 8], len - 4) && !warm.write(&[9; 8], u64::MAX - 4), "behind it");
    warm.cool();
    assert!(!warm.write(&[9; 8], 2 * MEMORY_PAGE), "cold again");
    let mut found = vec![0; len as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    // Miri's mappings are copies.
    assert!(cfg!(miri) || found == wanted);
}

#[test]
#[cfg(target_os = "linux")]
#[cfg_attr(miri, ignore = "miri has no page faults")]
fn what_reached_the_disk_by_itself_is_warmed_again() {
    let faults = || {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The name before, in brackets, may have spaces in it.
        let fields = stat.rsplit_once(')').unwrap().1;
        fields.split_whitespace().nth(7).unwrap().parse::<u64>().unwrap()
    };
    let pages = 512;
    let len = pages * MEMORY_PAGE;
    // How many faults there are where it is warm, and where it was warmed again.
    let tried = || {
        let file = file_of(&[]);
        // In pieces: one large one is protected, and set free, as a whole.
        (0..pages)
            .for_each(|page| file.write_all_at(&[0; MEMORY_PAGE as usize], page * MEMORY_PAGE).unwrap());
        let warm = Warm::default();
        warm.up(&file, 0..len);
        let write = || {
            let before = faults();
            assert!((0..pages).all(|page| warm.write(&[page as u8; 64], page * MEMORY_PAGE)));
            faults() - before
        };
        // The counter is looked at once before, so that only what is written counts.
        faults();
        let first = write();
        // As when the system writes what has lain about for long.
        file.sync_all().unwrap();
        warm.up(&file, 0..len);
        [first, write()]
    };
    // The system may do so at any moment.
    let tries: Vec<_> = (0..20).map(|_| tried()).collect();
    assert!(tries.iter().any(|faults| faults.iter().all(|&faults| faults < pages / 8)), "{tries:?}");
}
