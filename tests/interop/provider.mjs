// A real OAuth provider (oidc-provider) for the interop run: `node provider.mjs PORT`.
//
// Its keys are made at start and live in memory, so a restart is a provider with new keys. Access tokens are JWTs
// (RFC 9068) by client_credentials; the resource indicator (RFC 8707) picks audience, algorithm and lifetime.
import { generateKeyPairSync, randomBytes } from 'node:crypto';

import Provider from 'oidc-provider';

const port = Number(process.argv[2]);
const scopes = ['orders:read', 'orders:write'];

const servers = {
  'https://api.example.com/rs256': { audience: 'orders', alg: 'RS256', ttl: 900 },
  'https://api.example.com/es256': { audience: 'orders', alg: 'ES256', ttl: 900 },
  'https://api.example.com/short': { audience: 'orders', alg: 'ES256', ttl: 3 },
  'https://api.example.com/other': { audience: 'billing', alg: 'RS256', ttl: 900 },
};

const client = (client_id) => ({
  client_id,
  client_secret: `${client_id}-secret`,
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  scope: scopes.join(' '),
});

const key = (alg, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
  alg,
  use: 'sig',
  kid: randomBytes(8).toString('hex'),
});

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: ['shop-web', 'stranger', 'blocked', 'thrifty'].map(client),
  jwks: { keys: [key('RS256', 'rsa', { modulusLength: 2048 }), key('ES256', 'ec', { namedCurve: 'P-256' })] },
  scopes,
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo(ctx, indicator) {
        const server = servers[indicator];
        if (!server) throw new Error('unknown resource indicator');
        return {
          scope: scopes.join(' '),
          audience: server.audience,
          accessTokenTTL: server.ttl,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: server.alg } },
        };
      },
    },
  },
});

provider.listen(port, '127.0.0.1', () => console.log('ready'));
