// Key pairs that can be exported as JWKs. Node 20 may hang for ever when it exports one that its generator still holds:
// the export has the key's lock, and a garbage collection within it frees the generator, which wants that lock too. So
// the keys go through PEM once.
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';

// As `generateKeyPairSync` without encodings.
export function keyPair(type, options = {}) {
  const pem = generateKeyPairSync(type, {
    ...options,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  return { publicKey: createPublicKey(pem.publicKey), privateKey: createPrivateKey(pem.privateKey) };
}
