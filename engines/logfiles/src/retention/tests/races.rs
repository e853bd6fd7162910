//! Records that come and go while a bucket is on its way into another file.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::*;

impl Rig {
    /// Goes on with the keeper's work until a file is there that it writes.
    async fn work_until_there(&self, mut work: std::pin::Pin<&mut impl Future<Output = ()>>, file: &Path) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.disk.stat(file).is_err() {
            assert!(tokio::time::Instant::now() < deadline, "{} never came", file.display());
            let ended = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await;
            assert!(!ended, "{} never came", file.display());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[test]
fn a_bucket_whose_front_goes_while_it_is_compressed_keeps_what_is_left() {
    with_keeper(SimDisk::new(), async |rig| {
        // Several blocks, so that the keeper has much to write yet.
        rig.put(KEY, (0..6000).map(noise)).await;
        let (view, front) = rig.storage.file_view("log", BucketNumber::of(KEY)).await.unwrap().unwrap();
        rig.put(KEY, (0..10).map(|n| vec![n; 100])).await;
        let left: Vec<_> = (0..10).map(|n| (KEY, vec![n; 100])).collect();
        rig.days_after(KEY, 10);
        let mut retaining = pin!(rig.keeper.retain());
        rig.work_until_there(retaining.as_mut(), &path(KEY).with_extension("new")).await;
        rig.storage.take_front(&view, &front).await.unwrap();
        retaining.await;
        assert!(rig.records(KEY) == left, "{} records", rig.records(KEY).len());
        assert_eq!(rig.names(), ["275"]);
    });
}

#[test]
fn an_archive_stays_when_records_come_into_its_bucket_meanwhile() {
    let disk = SimDisk::new();
    let archive = path(KEY).with_extension("gz");
    write(&disk, &archive, &zipped(&bucket(Format::V1, KEY, 5000)));
    with_keeper(disk, async |rig| {
        let mut adopting = pin!(rig.keeper.adopt());
        rig.work_until_there(adopting.as_mut(), &path(KEY).with_extension("raw.new")).await;
        rig.put(KEY, std::iter::once(b"late".to_vec())).await;
        adopting.await;
        assert_eq!(rig.records(KEY), [(KEY, b"late".to_vec())]);
        assert_eq!(rig.names(), ["275", "275.gz"]);
        let problems = rig.problems();
        assert!(problems[0].contains("log/0000000057/275.gz: "), "{problems:?}");
    });
}
