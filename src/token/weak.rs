//! Public keys that verify what their owner never signed, though their numbers are well formed.
//!
//! Only tells them; refusing is up to whoever reads keys.

/// Whether an RSA modulus has the form that Infineon's library gave its primes (ROCA, CVE-2017-15361), so
/// that it can be factored: it is then a power of 65537 modulo each of the small primes. Another modulus
/// passes all of them about once in 2^27.
pub(super) fn is_roca(modulus: &[u8]) -> bool {
    ROCA_PRIMES.iter().all(|prime| is_power_of_generator(residue(modulus, *prime), *prime))
}

/// Whether an Ed25519 key is one of the few points of order 1, 2, 4 or 8, in any of their spellings: a
/// signature that holds for every message can be made for them without any secret.
pub(super) fn has_small_order(key: &[u8]) -> bool {
    let Some((last, rest)) = key.split_last() else { return true };
    // The top bit is the sign of x, which does not change the order.
    SMALL_ORDER.iter().any(|y| rest == &y[..31] && last & 0x7f == y[31])
}

fn residue(number: &[u8], prime: u32) -> u32 {
    number.iter().fold(0, |rest, byte| (rest << 8 | u32::from(*byte)) % prime)
}

fn is_power_of_generator(number: u32, prime: u32) -> bool {
    let mut power = 1;
    for _ in 1..prime {
        if power == number {
            return true;
        }
        power = power * 65537 % prime;
    }
    false
}

/// The odd primes whose residues the form fixes for every key length from 512 bits.
const ROCA_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// y of each point of small order, little-endian: 0, 1, two of order 8, p−1, and p and p+1, which are 0 and 1 in
/// another spelling.
#[rustfmt::skip] // a table
const SMALL_ORDER: [[u8; 32]; 7] = [
    hex("0000000000000000000000000000000000000000000000000000000000000000"),
    hex("0100000000000000000000000000000000000000000000000000000000000000"),
    hex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    hex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
];

const fn hex(text: &str) -> [u8; 32] {
    const fn digit(character: u8) -> u8 {
        match character {
            b'0'..=b'9' => character - b'0',
            _ => character - b'a' + 10,
        }
    }
    let (text, mut bytes, mut i) = (text.as_bytes(), [0; 32], 0);
    while i < 32 {
        bytes[i] = digit(text[2 * i]) << 4 | digit(text[2 * i + 1]);
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_the_generator_are_told_from_others() {
        // 65537^k modulo the product of the primes is of the form, whatever k.
        assert!(is_roca(&65537_u32.to_be_bytes()) && is_roca(&[1]));
        assert!(is_roca(&(65537_u64 * 65537).to_be_bytes()));
        assert!(!is_roca(&65539_u32.to_be_bytes()) && !is_roca(&[0]) && !is_roca(&[2]) && !is_roca(&[]));
    }

    #[test]
    fn small_orders_are_told_in_every_spelling() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(has_small_order(&identity) && has_small_order(&[0; 32]) && has_small_order(&[]));
        identity[31] = 0x80;
        assert!(has_small_order(&identity));
        identity[0] = 2;
        assert!(!has_small_order(&identity));
        let mut p = [0xff; 32];
        p[0] = 0xed;
        assert!(has_small_order(&p));
    }
}
