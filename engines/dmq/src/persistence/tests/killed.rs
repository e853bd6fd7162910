//! The process is killed at any step of a move or of a stop: each step's directory is copied, and a node opens the copy.

use std::cell::RefCell;
use std::rc::Rc;

use tempfile::TempDir;

use super::super::staging::watch;
use super::*;

/// In memory where that can be: hundreds of nodes start here, and each brings files to the disk.
fn place() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Does something, and ends with copies of the directory at each step of it.
fn steps(dir: &Path, act: impl FnOnce()) -> Vec<TempDir> {
    let copies = Rc::new(RefCell::new(Vec::new()));
    let (made, watched) = (Rc::clone(&copies), dir.to_owned());
    watch(Some(Box::new(move |_| {
        let place = self::place();
        copy(&watched, place.path());
        made.borrow_mut().push(place);
    })));
    act();
    watch(None);
    copies.take()
}

fn fill(from: Durability, dir: &Path) -> u32 {
    let count = if from == Durability::Memory { 8 } else { 60 };
    let mut node = opened(from, LIMIT, dir);
    push(&mut node.store, "a", 0..count);
    push(&mut node.store, "b", 0..3);
    assert_eq!(pop(&mut node.store, "a"), Some("a 00000".to_owned()));
    close(node);
    count
}

#[test]
fn a_move_that_is_cut_short_neither_loses_nor_doubles_a_record() {
    for from in MODES {
        for to in MODES {
            let dir = place();
            let count = fill(from, dir.path());
            let large = 1 << 20;
            let copies = steps(dir.path(), || drop(opened(to, large, dir.path())));
            // What overflow and memory have in common needs no move.
            let moves = from != to && (from, to) != (Durability::Memory, Durability::Overflow);
            assert!(copies.len() >= if moves { 5 } else { 0 }, "{from:?} to {to:?}: {}", copies.len());
            for (step, copy) in copies.iter().enumerate() {
                // Now and then the operator goes back.
                for then in [to, from].into_iter().take(1 + usize::from(step % 3 == 1)) {
                    let again = place();
                    self::copy(copy.path(), again.path());
                    let mut node = opened(then, large, again.path());
                    let what = format!("{from:?} to {to:?}, killed at step {step}, then {then:?}");
                    assert_eq!(pop_all(&mut node.store, "a"), expected("a", 1..count), "{what}");
                    assert_eq!(pop_all(&mut node.store, "b"), expected("b", 0..3), "{what}");
                    close(node);
                    let node = opened(then, large, again.path());
                    let totals = node.store.totals();
                    assert_eq!(totals.records_memory + totals.records_overflow, 0, "{what}");
                    assert!(names(again.path()).iter().all(|name| !name.starts_with("takeover")), "{what}");
                }
            }
        }
    }
}

#[test]
fn what_was_there_already_comes_first_and_once() {
    // Files of all modes at once, as after copying by hand.
    for to in MODES {
        let dir = place();
        for (from, numbers) in
            [(Durability::Memory, 0..5), (Durability::Overflow, 5..40), (Durability::Journal, 40..60)]
        {
            let place = self::place();
            let mut node = opened(from, if from == Durability::Overflow { 1 } else { 1 << 20 }, place.path());
            push(&mut node.store, "a", numbers);
            close(node);
            copy(place.path(), dir.path());
        }
        let order = match to {
            Durability::Journal => [40..60, 0..5, 5..40],
            Durability::Memory | Durability::Overflow => [0..5, 5..40, 40..60],
        };
        let wanted: Vec<String> = order.into_iter().flat_map(|numbers| expected("a", numbers)).collect();
        let copies = steps(dir.path(), || drop(opened(to, 1 << 20, dir.path())));
        for copy in copies {
            let mut node = opened(to, 1 << 20, copy.path());
            assert_eq!(pop_all(&mut node.store, "a"), wanted, "{to:?}");
        }
    }
}

#[test]
fn a_stop_that_is_cut_short_doubles_no_record_and_loses_none_that_it_saved() {
    let dir = place();
    let mut node = opened(Durability::Overflow, LIMIT, dir.path());
    // Of `a`, records that are on disk lie before some that are not; of `b`, behind them.
    push(&mut node.store, "a", 0..20);
    for number in 0..14 {
        assert_eq!(pop(&mut node.store, "a"), Some(format!("a {number:05}")));
    }
    push(&mut node.store, "a", 20..24);
    push(&mut node.store, "b", 0..20);
    for number in 0..5 {
        assert_eq!(pop(&mut node.store, "b"), Some(format!("b {number:05}")));
    }
    push(&mut node.store, "c", 0..4);
    node.store.settle().unwrap();
    let copies = steps(dir.path(), || close(node));
    assert!(copies.len() > 5, "{}", copies.len());
    let wanted = [expected("a", 14..24), expected("b", 5..20), expected("c", 0..4)];
    let mut complete = 0;
    for (step, copy) in copies.iter().enumerate() {
        let mut node = opened(Durability::Overflow, LIMIT, copy.path());
        let found = ["a", "b", "c"].map(|channel| pop_all(&mut node.store, channel));
        close(node);
        if found == wanted {
            complete += 1;
            continue;
        }
        // Before the stop was complete, what was in memory only goes with the process, and nothing else.
        assert_eq!(complete, 0, "step {step}: {found:?}");
        assert_eq!(found, [expected("a", 14..20), expected("b", 13..20), Vec::new()], "step {step}");
    }
    assert!(complete > 4, "{complete} of {}", copies.len());
    assert!(names(dir.path()).iter().all(|name| !name.starts_with("dump.pending")));
}
