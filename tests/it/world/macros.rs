//! `cluster_test!`: a test that needs a Kubernetes.
//!
//! `cluster_test!(a_fact_in_the_name, async |w: &World| { … });` runs beside others (up to four at once);
//! `cluster_test!(exclusive a_fact, async |w: &World| { … });` runs alone: nodes, API server, default class.
//! The test is called `….::a_fact_in_the_name::real` and is ignored unless asked for, so that without a
//! cluster it is seen to be skipped.

macro_rules! cluster_test {
    (exclusive $name:ident, $body:expr $(,)?) => {
        $crate::world::cluster_test!(@ $name, Exclusive, $body);
    };
    ($name:ident, $body:expr $(,)?) => {
        $crate::world::cluster_test!(@ $name, Shared, $body);
    };
    (@ $name:ident, $sharing:ident, $body:expr) => {
        mod $name {
            use super::*;

            #[test]
            #[ignore = "needs the real cluster: PVMIGRATE_TEST_CLUSTER=<path of the cluster script> cargo test -- --ignored real"]
            fn real() {
                $crate::world::run(stringify!($name), $crate::world::Sharing::$sharing, $body);
            }
        }
    };
}
pub(crate) use cluster_test;
