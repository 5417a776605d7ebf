//! What becomes of the source volumes.

use crate::world::{World, cluster_test, opts};

cluster_test!(originals_are_kept_until_a_cleanup_gives_them_up, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.ready("Deployment", "web").await;
    let source = w.pv_of("data").await;
    let directory = w.volume_dir(&source).expect("a host-path volume has a directory");
    let name = source["metadata"]["name"].as_str().unwrap().to_owned();
    let image = w.image();
    let moved =
        w.pvmigrate(&["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--yes", "--image", &image]).await;
    moved.succeeds().says(&name).says(&w.handle_of(&source)).done();
    let kept = w.get("pv", &name).await;
    assert_eq!(kept["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert!(directory.exists());
    w.pvmigrate(&["cleanup", &w.run_id()]).await.exits(3).says("--yes").done();
    assert!(directory.exists());
    w.pvmigrate(&["cleanup", &w.run_id(), "--yes"]).await.succeeds().says(&name).done();
    assert_eq!(w.find("pv", &name).await, None);
    assert!(!directory.exists(), "the backend is freed too");
    w.pvmigrate(&["cleanup", &w.run_id(), "--yes"]).await.succeeds().says("nothing to free").done();
    w.still_intact().await;
});

cluster_test!(originals_are_given_up_at_once_when_told, async |w: &World| {
    let (disk, fast) = (w.class("disk-a").await, w.class("fast").await);
    w.exercise_statefulset("db", 1, &disk, "32Mi", opts().node("node2")).await;
    w.ready("StatefulSet", "db").await;
    let source = w.pv_of("data-db-0").await;
    let name = source["metadata"]["name"].as_str().unwrap().to_owned();
    let file = w.disk_file(&source).expect("a disk has a file");
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &disk, "--dest-sc", &fast, "--originals", "delete", "--yes"];
    w.pvmigrate(&[&words[..], &["--image", &image]].concat()).await.succeeds().says("false").done();
    assert_eq!(w.find("pv", &name).await, None);
    assert!(!file.exists(), "the backend is freed too");
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});
