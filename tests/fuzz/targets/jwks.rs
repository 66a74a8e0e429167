//! Any bytes as a provider's key set, and as a file of decryption keys. Whatever keys are taken, a signature of zeros
//! or of nothing is nobody's.
#![no_main]

use tollgate::token::{jwe, jws::Verifier, settings::Algorithm};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Ok(keys) = Verifier::of_set(text, &Algorithm::ALL) {
        for algorithm in Algorithm::ALL {
            for size in [0, 1, 64, 96, 132, 256, 512] {
                assert!(!keys.verify_detached(algorithm, b"message", &vec![0; size]), "{algorithm:?} {size}");
            }
            assert!(!algorithm.is_symmetric() || !keys.verify_detached(algorithm, b"message", b"x"));
        }
        let mut neutral = [0; 64];
        neutral[0] = 1;
        assert!(!keys.verify_detached(Algorithm::EdDSA, b"message", &neutral));
    }
    if let Ok(keys) = jwe::Keys::parse(text) {
        assert!(keys.decrypt("e30.AA.AAAAAAAAAAAAAAAA.AA.AAAAAAAAAAAAAAAAAAAAAA").is_err());
    }
});
