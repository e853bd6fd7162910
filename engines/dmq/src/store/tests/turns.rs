use std::time::Instant;

use overstory_node::wake::Watch;

use super::*;

struct Consumer {
    id: ConsumerId,
    watch: Watch,
}

fn consumers(store: &mut Store, queue: QueueId, count: usize) -> Vec<Consumer> {
    let joined = std::iter::repeat_with(|| {
        let (waker, watch) = Waker::watched();
        Consumer { id: store.join(queue, waker), watch }
    });
    joined.take(count).collect()
}

/// Which were woken since the last call.
fn woken(consumers: &[Consumer]) -> Vec<usize> {
    let woken = consumers.iter().enumerate().filter(|(_, consumer)| consumer.watch.take());
    woken.map(|(at, _)| at).collect()
}

fn take(store: &mut Store, queue: QueueId, consumer: &Consumer) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    match store.take(queue, consumer.id, 0, &mut out) {
        Some(taken) => store.accept(taken),
        None => store.wait(queue, consumer.id),
    }
    records(&out)
}

#[test]
fn each_push_wakes_one_in_turn() {
    let mut store = store(1000, false, None);
    let queue = store.subscribe("chan", "").unwrap();
    let consumers = consumers(&mut store, queue, 3);
    for consumer in &consumers {
        assert!(take(&mut store, queue, consumer).is_empty());
    }
    for round in 0..7 {
        store.push("chan", b"record").unwrap();
        assert_eq!(woken(&consumers), [round % 3]);
        let consumer = &consumers[round % 3];
        assert_eq!(take(&mut store, queue, consumer), [b"record"]);
        assert!(take(&mut store, queue, consumer).is_empty());
    }
    for _ in 0..4 {
        store.push("chan", b"record").unwrap();
    }
    assert_eq!(woken(&consumers), [0, 1, 2], "nobody twice");
}

#[test]
fn one_that_goes_away_without_taking_wakes_the_next() {
    let mut store = store(1000, false, None);
    let queue = store.subscribe("chan", "").unwrap();
    let consumers = consumers(&mut store, queue, 3);
    consumers.iter().for_each(|consumer| store.wait(queue, consumer.id));
    store.push("chan", b"record").unwrap();
    assert_eq!(woken(&consumers), [0]);
    store.leave(queue, consumers[0].id);
    assert_eq!(woken(&consumers), [1]);
    // One that waits and goes is not woken any more.
    store.leave(queue, consumers[2].id);
    store.push("chan", b"record").unwrap();
    assert_eq!(woken(&consumers), [0; 0]);
    store.leave(queue, consumers[1].id);
    assert_eq!(store.queue_totals(queue).unwrap().consumers, 0);
    store.leave(queue, consumers[1].id);
}

#[test]
fn whoever_leaves_something_wakes_the_next() {
    let mut store = store(1000, true, None);
    let queue = store.subscribe("chan", "").unwrap();
    let consumers = consumers(&mut store, queue, 3);
    for _ in 0..3 {
        store.push("chan", b"record").unwrap();
    }
    let mut out = Vec::new();
    let taken = store.take(queue, consumers[0].id, 1000, &mut out).unwrap();
    consumers[1..].iter().for_each(|consumer| store.wait(queue, consumer.id));
    assert_eq!(woken(&consumers), [0; 0]);
    store.give_back(taken, &out);
    store.leave(queue, consumers[0].id);
    assert_eq!(woken(&consumers), [1]);
    assert_eq!(take(&mut store, queue, &consumers[1]).len(), 1);
    assert_eq!(woken(&consumers), [2]);
    assert_eq!(take(&mut store, queue, &consumers[2]).len(), 1);
    // A woken one that found nothing waits again, and is woken by the next record.
    assert_eq!(take(&mut store, queue, &consumers[1]).len(), 1);
    assert!(take(&mut store, queue, &consumers[2]).is_empty());
    store.push("chan", b"record").unwrap();
    assert_eq!(woken(&consumers), [2]);
}

#[test]
fn one_that_waits_although_there_is_something_is_woken() {
    let mut store = store(1000, true, None);
    let queue = store.subscribe("chan", "").unwrap();
    store.push("chan", b"record").unwrap();
    let consumers = consumers(&mut store, queue, 2);
    store.wait(queue, consumers[0].id);
    assert_eq!(woken(&consumers), [0]);
    // It does not come: once a second the next one has its turn.
    store.wait(queue, consumers[1].id);
    assert_eq!(woken(&consumers), [0; 0]);
    store.observe(Instant::now());
    assert_eq!(woken(&consumers), [1]);
}

#[test]
fn nobody_spins_over_a_disk_that_cannot_be_read() {
    let disk = TestDisk::new(false);
    let mut store = store(10, false, Some(&disk));
    let queue = store.subscribe("chan", "").unwrap();
    let consumers = consumers(&mut store, queue, 2);
    disk.state().broken = true;
    store.push("chan", b"too long for the memory").unwrap();
    assert!(take(&mut store, queue, &consumers[0]).is_empty());
    store.settle().unwrap_err();
    store.settle().unwrap();
    assert!(take(&mut store, queue, &consumers[1]).is_empty());
    store.settle().unwrap_err();
    assert_eq!(woken(&consumers), [0; 0]);
    disk.state().broken = false;
    store.push("chan", b"second").unwrap();
    assert_eq!(woken(&consumers), [0]);
    assert_eq!(take(&mut store, queue, &consumers[0]), [b"too long for the memory"]);
    assert_eq!(woken(&consumers), [1]);
}

#[test]
fn the_end_of_a_channel_wakes_everybody() {
    let mut store = store(20, true, None);
    let queue = store.subscribe("chan", "sub").unwrap();
    let consumers = consumers(&mut store, queue, 2);
    store.push("chan", b"record").unwrap();
    let mut out = Vec::new();
    let taken = store.take(queue, consumers[0].id, 100, &mut out).unwrap();
    let (waker, producer) = Waker::watched();
    store.when_room(queue, waker.clone());
    assert!(store.remove_channel("chan") && !store.remove_channel("chan"));
    assert_eq!(woken(&consumers), [0, 1]);
    assert!(producer.take() && store.is_removed(queue));
    store.when_room(queue, waker);
    assert!(producer.take());
    // All that is still said about it changes nothing.
    store.give_back(taken, &out);
    store.wait(queue, consumers[0].id);
    store.leave(queue, consumers[0].id);
    assert!(store.take(queue, consumers[1].id, 100, &mut out).is_none());
    let again = store.subscribe("chan", "sub").unwrap();
    assert_ne!(again, queue);
    assert_eq!(store.queue_totals(again).unwrap().records_memory, 0);
}

#[test]
fn a_producer_is_woken_when_records_were_taken() {
    let mut store = store(100, false, None);
    while store.push("chan", &[1; 12]).is_ok() {}
    let PushError::Full { queue } = store.push("chan", &[1; 12]).unwrap_err() else { panic!("not full") };
    let (waker, producer) = Waker::watched();
    store.when_room(queue, waker);
    assert!(!producer.take());
    assert!(pop(&mut store, "chan").is_some() && producer.take());
    assert!(pop(&mut store, "chan").is_some() && !producer.take(), "once");

    // Many are woken when it is worth it, and all of them.
    while store.push("chan", &[1; 1]).is_ok() {}
    let producers: Vec<_> = std::iter::repeat_with(Waker::watched).take(100).collect();
    producers.iter().for_each(|(waker, _)| store.when_room(queue, waker.clone()));
    while pop(&mut store, "chan").is_some() {}
    assert!(producers.iter().all(|(_, watch)| watch.take()));
}
