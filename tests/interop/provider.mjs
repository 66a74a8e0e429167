// A real OAuth provider (oidc-provider) for the interop run: `node provider.mjs PORT KEYS NEWEST OLDEST`.
//
// Its keys lie in the folder KEYS by number, made where they are missing; those from NEWEST down to OLDEST are
// published, and NEWEST signs. All else lives in memory, so a restart forgets every opaque token. Access tokens come by
// client_credentials; the resource indicator (RFC 8707) picks form (JWTs as in RFC 9068), audience, algorithm, lifetime.
import { createPublicKey, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';

import Provider from 'oidc-provider';

import { keyPair } from './keypair.mjs';

const [port, folder, newest, oldest] = [Number(process.argv[2]), process.argv[3], ...process.argv.slice(4).map(Number)];
const scopes = ['orders:read', 'orders:write'];

const servers = {
  'https://api.example.com/rs256': { audience: 'orders', alg: 'RS256', ttl: 900 },
  'https://api.example.com/es256': { audience: 'orders', alg: 'ES256', ttl: 900 },
  'https://api.example.com/short': { audience: 'orders', alg: 'ES256', ttl: 3 },
  'https://api.example.com/other': { audience: 'billing', alg: 'RS256', ttl: 900 },
  'https://api.example.com/opaque': { audience: 'orders', ttl: 900 },
  'https://api.example.com/opaque-short': { audience: 'orders', ttl: 4 },
  'https://api.example.com/opaque-other': { audience: 'billing', ttl: 900 },
};

const client = (client_id, more = {}) => ({
  client_id,
  client_secret: `${client_id}-secret`,
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  scope: scopes.join(' '),
  ...more,
});

const key = (alg, type, options) => ({
  ...keyPair(type, options).privateKey.export({ format: 'jwk' }),
  alg,
  use: 'sig',
  kid: randomBytes(8).toString('hex'),
});

// The keys of one number: kept, so that a restart publishes the same ones.
const generation = (number) => {
  const file = `${folder}/${number}.json`;
  if (!existsSync(file)) {
    const keys = [key('RS256', 'rsa', { modulusLength: 2048 }), key('ES256', 'ec', { namedCurve: 'P-256' })];
    writeFileSync(file, JSON.stringify(keys), { mode: 0o600 });
  }
  return JSON.parse(readFileSync(file, 'utf8'));
};

// The key by which the gate says who it is.
const gateKey = () => {
  const file = `${folder}/client.pem`;
  if (!existsSync(file)) {
    const pair = keyPair('ec', { namedCurve: 'P-256' });
    writeFileSync(file, pair.privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  }
  return { ...createPublicKey(readFileSync(file, 'utf8')).export({ format: 'jwk' }), use: 'sig' };
};

mkdirSync(folder, { recursive: true, mode: 0o700 });
const numbers = Array.from({ length: newest - oldest + 1 }, (_, n) => newest - n);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    ...['shop-web', 'stranger', 'blocked', 'waiting', 'thrifty', 'tollgate'].map((name) => client(name)),
    client('tollgate-post', { token_endpoint_auth_method: 'client_secret_post' }),
    client('tollgate-key', {
      client_secret: undefined,
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks: { keys: [gateKey()] },
    }),
  ],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
  jwks: { keys: numbers.flatMap(generation) },
  scopes,
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    registration: { enabled: true, initialAccessToken: 'initial-secret' },
    registrationManagement: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo(ctx, indicator) {
        const server = servers[indicator];
        if (!server) throw new Error('unknown resource indicator');
        return {
          scope: scopes.join(' '),
          audience: server.audience,
          accessTokenTTL: server.ttl,
          ...(server.alg
            ? { accessTokenFormat: 'jwt', jwt: { sign: { alg: server.alg } } }
            : { accessTokenFormat: 'opaque' }),
        };
      },
    },
  },
});

provider.listen(port, '127.0.0.1', () => console.log('ready'));
