//! Whole moves from one class to another.

use crate::world::{World, cluster_test, opts};

cluster_test!(a_statefulset_and_a_deployment_move_from_slow_to_fast, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.exercise_statefulset("db", 2, &slow, "32Mi", opts()).await;
    w.ready("Deployment", "web").await;
    w.ready("StatefulSet", "db").await;
    let image = w.image();
    let moved = w
        .pvmigrate(&["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--yes", "--image", &image])
        .await
        .succeeds();
    println!("{}{}", moved.stdout, moved.stderr);
    for claim in ["data", "data-db-0", "data-db-1"] {
        assert_eq!(w.get("pvc", claim).await["spec"]["storageClassName"], fast.as_str());
        assert!(moved.stdout.contains(claim));
    }
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});
