// Good tokens of every algorithm and seeded mutations of them, through a running gate and through npm's jose.
//
//   opinion.mjs keys DIR                    makes keys, and what the gate reads of them
//   opinion.mjs ask DIR GATE-PORT SEED N    asks both; leaves DIR/asked.jsonl for the next opinion; fails on what only
//                                           the gate takes
import * as crypto from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import * as jose from "jose";
import { keyPair } from "./keypair.mjs";

const issuer = "https://idp.example.com/second";
const audience = "second-opinion";
const hash = (alg) => `sha${alg.slice(2)}`;
const keyIds = {
  RS256: "rsa", RS384: "rsa", RS512: "rsa", PS256: "rsa", PS384: "rsa", PS512: "rsa",
  ES256: "p256", ES384: "p384", ES512: "p521", EdDSA: "ed", HS256: "s256", HS384: "s384", HS512: "s512",
};
const algorithms = Object.keys(keyIds);
const b64 = (data) => Buffer.from(data).toString("base64url");

// ---- keys ------------------------------------------------------------------------------------------------------------

function makeKeys(dir) {
  const pair = {
    rsa: keyPair("rsa", { modulusLength: 2048 }),
    p256: keyPair("ec", { namedCurve: "P-256" }),
    p384: keyPair("ec", { namedCurve: "P-384" }),
    p521: keyPair("ec", { namedCurve: "P-521" }),
    ed: keyPair("ed25519"),
  };
  const write = (name, value) => writeFileSync(`${dir}/${name}`, value, { mode: 0o600 });
  const jwk = (kid, key) => ({ ...key.export({ format: "jwk" }), kid });
  write("jwks.json", JSON.stringify({ keys: Object.entries(pair).map(([kid, { publicKey }]) => jwk(kid, publicKey)) }));
  write("private.json", JSON.stringify(Object.entries(pair).map(([kid, { privateKey }]) => jwk(kid, privateKey))));
  const opens = { "enc-rsa": keyPair("rsa", { modulusLength: 2048 }), "enc-ec": keyPair("ec", { namedCurve: "P-256" }) };
  write("decryption.json", JSON.stringify({ keys: Object.entries(opens).map(([kid, { privateKey }]) => jwk(kid, privateKey)) }));
  for (const size of [32, 48, 64]) write(`s${size * 8}`, b64(crypto.randomBytes(size)));
}

function readKeys(dir) {
  const read = (name) => readFileSync(`${dir}/${name}`, "utf8");
  const own = Object.fromEntries(JSON.parse(read("private.json")).map((jwk) => [jwk.kid, crypto.createPrivateKey({ key: jwk, format: "jwk" })]));
  for (const kid of ["s256", "s384", "s512"]) own[kid] = Buffer.from(read(kid), "base64url");
  const opens = JSON.parse(read("decryption.json")).keys;
  return { own, opens, set: jose.createLocalJWKSet(JSON.parse(read("jwks.json"))) };
}

// ---- tokens ----------------------------------------------------------------------------------------------------------

// Mulberry32: small, and the same everywhere for a seed.
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function signature(alg, key, message) {
  if (alg.startsWith("HS")) return crypto.createHmac(hash(alg), key).update(message).digest();
  if (alg === "EdDSA") return crypto.sign(null, message, key);
  if (alg.startsWith("ES")) return crypto.sign(hash(alg), message, { key, dsaEncoding: "ieee-p1363" });
  if (alg.startsWith("RS")) return crypto.sign(hash(alg), message, key);
  return crypto.sign(hash(alg), message, {
    key, padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: crypto.constants.RSA_PSS_SALTLEN_DIGEST,
  });
}

// Members are pairs of JSON texts, so that a mutation may spell one in any way, or twice.
function draft(alg, now, n) {
  const text = (pairs) => Object.entries(pairs).map(([name, value]) => [JSON.stringify(name), JSON.stringify(value)]);
  return {
    alg, key: keyIds[alg], now,
    header: text({ alg, kid: keyIds[alg], typ: "at+jwt" }),
    claims: text({ iss: issuer, aud: audience, sub: "alice", client_id: "shop", scope: "read", iat: now, exp: now + 3600, jti: `t${n}` }),
    spell: (header, claims) => [header, claims],
    finish: [],
  };
}

function object(pairs) {
  return `{${pairs.map(([name, value]) => `${name}:${value}`).join(",")}}`;
}

function seal(token, keys) {
  const [header, claims] = token.spell(object(token.header), object(token.claims));
  const message = `${b64(header)}.${b64(claims)}`;
  const sealed = `${message}.${b64(signature(token.alg, keys.own[token.key], Buffer.from(message)))}`;
  return token.finish.reduce((text, change) => change(text), sealed);
}

function set(part, name, json) {
  return (token) => {
    token[part] = token[part].filter(([have]) => have !== `"${name}"`);
    if (json !== undefined) token[part].push([`"${name}"`, json]);
  };
}

const add = (part, name, json, front) => (token) => token[part][front ? "unshift" : "push"]([name, json]);
const spell = (change) => (token) => { token.spell = change; };
const finish = (change) => (token) => token.finish.push(change);
const part = (index, change) => finish((text) => text.split(".").map((one, n) => (n === index ? change(one) : one)).join("."));
const after = (name, seconds) => (token) => set("claims", name, String(token.now + seconds))(token);
const flip = (index) => part(index, (one) => {
  const bytes = Buffer.from(one, "base64url");
  if (bytes.length > 0) bytes[bytes.length >> 1] ^= 1;
  return b64(bytes);
});

// The last character's unused bits set: the same bytes to a lax decoder.
function unusedBits(one) {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return one.length % 4 === 0 ? one : one.slice(0, -1) + alphabet[alphabet.indexOf(one.at(-1)) | 1];
}

function mutations() {
  const all = [];
  const of = (name, change) => all.push([name, change]);
  for (const [name, values] of Object.entries({
    typ: [undefined, '"JWT"', '"jwt"', '"application/at+jwt"', '"AT+JWT"', '"logout+jwt"', '"dpop+jwt"', '"x"', "1", "null", '""'],
    cty: ['"JWT"', '"json"', "1"],
    alg: [undefined, "null", '"none"', '"None"', '"HS256"', '"RS256"', '"PS256"', '"ES256"', '"ES384"', '"EdDSA"', '"Ed25519"', '"ES256K"', '"rs256"', "[]"],
    kid: [undefined, "null", '"rsa"', '"p256"', '"nobody"', '"RSA"', '""', "1", '["rsa"]'],
    crit: ["[]", '["exp"]', '["alg"]', '["bork"]', '["b64"]', '"exp"', "null"],
    b64: ["true", "false"],
    zip: ['"DEF"', '"x"'],
    jku: ['"http://127.0.0.1:1/jwks"'],
    x5u: ['"http://127.0.0.1:1/x"'],
    x5c: ["[]", '["AAAA"]'],
    jwk: ['{"kty":"oct","k":"AAAA"}', "{}", "1"],
    "x-more": ["1", '"\\ud800"', '{"a":{"b":[1,2,{}]}}', '{"a":1,"a":2}'],
  })) for (const value of values) of(`header ${name} ${value ?? "gone"}`, set("header", name, value));
  for (const [name, values] of Object.entries({
    iss: [undefined, "null", `"${issuer}/"`, `"${issuer} "`, '"https://idp.example.com/secon\\u0064"', `["${issuer}"]`, '"https://IDP.example.com/second"', '""'],
    aud: [undefined, "null", `["${audience}"]`, `["a","${audience}"]`, `["${audience}",1]`, `"a ${audience}"`, `"${audience.toUpperCase()}"`, "[]", "{}", "1", `{"a":"${audience}"}`, `[["${audience}"]]`],
    exp: [undefined, "null", '"9999999999"', "9999999999", "9999999999.5", "9.999999999e9", "99999999990e-1", "1e308", "1e400", "-1", "0", "-0", "true", "[]", "18446744073709551616", "9223372036854775807", "01", "+9999999999", "NaN", "1700000000.5"],
    nbf: [undefined, "null", '"1"', "1", "1.5", "1e3", "9999999999", "-1", "true", "1e308", "0"],
    iat: [undefined, "null", '"1"', "1", "1.5", "9999999999", "-1", "true", "0"],
    sub: [undefined, "null", "1", '""', '"a\\u0000b"', '"a\\r\\nb"', "[]", '"\\ud83d\\ude00"', '"\\ud800"'],
    jti: [undefined, "1", "null", '""'],
    scope: [undefined, '["read"]', "1", '""'],
    client_id: [undefined, "1", '""'],
    nonce: ['"n"'], at_hash: ['"x"'], events: ["{}"], cnf: ["{}", '{"jkt":"x"}', "1"],
    deep: [`${"[".repeat(8)}${"]".repeat(8)}`, `${"[".repeat(500)}${"]".repeat(500)}`, '{"a":1,"a":2}', "1e999", '"\\x"', "'a'", "/*x*/1"],
  })) for (const value of values) of(`claim ${name} ${(value ?? "gone").slice(0, 30)}`, set("claims", name, value));
  for (const [name, seconds] of [["exp", -3600], ["exp", -5], ["exp", 10], ["nbf", 3600], ["nbf", 5], ["nbf", -5], ["iat", 3600], ["iat", 5], ["iat", -7200]])
    of(`claim ${name} now ${seconds}`, after(name, seconds));
  for (const front of [true, false]) {
    const where = front ? "first" : "last";
    for (const [name, json] of [['"alg"', '"none"'], ['"kid"', '"rsa"'], ['"x"', "1"], ['"\\u0061lg"', '"none"'], ['"typ"', '"JWT"']])
      of(`header ${name} twice, ${where}`, add("header", name, json, front));
    for (const [name, json] of [['"exp"', "1"], ['"exp"', "9999999999"], ['"aud"', '"x"'], ['"aud"', `"${audience}"`], ['"iss"', '"x"'], ['"\\u0065xp"', "9999999999"], ['"\\u0069ss"', '"x"'], ['"__proto__"', "{}"]])
      of(`claim ${name} twice or odd, ${where}`, add("claims", name, json, front));
  }
  for (const [name, change] of [
    ["white space", (one) => `${one.slice(0, 1)} \n\t${one.slice(1)} \r\n`],
    ["a byte order mark", (one) => `\ufeff${one}`],
    ["text after it", (one) => `${one}x`],
    ["a comma too many", (one) => `${one.slice(0, -1)},}`],
    ["no UTF-8", (one) => Buffer.concat([Buffer.from(`${one.slice(0, -1)},"u":"`), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])],
    ["a list", (one) => `[${one}]`],
    ["UTF-16", (one) => Buffer.from(one, "utf16le")],
    ["nothing", () => ""],
    ["escapes", (one) => one.replace('"alg"', '"\\u0061lg"').replace('"exp"', '"e\\u0078p"')],
  ]) {
    of(`header: ${name}`, spell((header, claims) => [change(header), claims]));
    of(`claims: ${name}`, spell((header, claims) => [header, change(claims)]));
  }
  for (let index = 0; index < 3; index++) {
    const where = ["header", "claims", "signature"][index];
    of(`${where}: a bit`, flip(index));
    of(`${where}: padded`, part(index, (one) => one + "=".repeat((4 - (one.length % 4)) % 4)));
    of(`${where}: padded once`, part(index, (one) => `${one}=`));
    of(`${where}: unused bits`, part(index, unusedBits));
    of(`${where}: another alphabet`, part(index, (one) => one.replaceAll("-", "+").replaceAll("_", "/")));
    of(`${where}: cut`, part(index, (one) => one.slice(0, -1)));
    of(`${where}: longer`, part(index, (one) => `${one}A`));
    of(`${where}: four more`, part(index, (one) => `${one}AAAA`));
    of(`${where}: empty`, part(index, () => ""));
    of(`${where}: foreign sign`, part(index, (one) => `${one.slice(0, 4)}!${one.slice(4)}`));
    of(`${where}: full stop`, part(index, (one) => `${one.slice(0, 4)}.${one.slice(4)}`));
  }
  of("a dot more", finish((text) => `${text}.`));
  of("a dot before", finish((text) => `.${text}`));
  of("two parts", finish((text) => text.split(".").slice(0, 2).join(".")));
  of("parts swapped", finish((text) => text.split(".").reverse().join(".")));
  return all;
}

const envelopes = [
  ["RSA-OAEP-256", "A128GCM", "enc-rsa"], ["RSA-OAEP-256", "A256GCM", "enc-rsa"], ["ECDH-ES", "A128GCM", "enc-ec"],
  ["ECDH-ES", "A256GCM", "enc-ec"],
];

async function wrapped([alg, enc, kid], inner, keys, cty = "JWT") {
  const { kty, n, e, crv, x, y } = keys.opens.find((jwk) => jwk.kid === kid);
  const key = await jose.importJWK({ kty, n, e, crv, x, y }, alg);
  return new jose.CompactEncrypt(Buffer.from(inner)).setProtectedHeader({ alg, enc, kid, ...(cty && { cty }) }).encrypt(key);
}

// name, mutations in it, token
async function tokens(seed, count, keys) {
  const next = random(seed);
  const pick = (list) => list[Math.floor(next() * list.length)];
  const now = Math.floor(Date.now() / 1000);
  const changes = mutations();
  const all = [];
  const mint = (alg, chosen) => {
    const token = draft(alg, now, all.length);
    for (const [, change] of chosen) change(token);
    return seal(token, keys);
  };
  const push = (alg, chosen, token) => all.push({ name: [alg, ...chosen.map(([name]) => name)].join("; "), changes: chosen.length, token });
  for (const alg of algorithms) push(alg, [], mint(alg, []));
  for (const envelope of envelopes) push(`JWE ${envelope[0]} ${envelope[1]}`, [], await wrapped(envelope, mint("ES256", []), keys));
  for (const change of changes) for (const alg of [pick(algorithms), pick(algorithms)]) push(alg, [change], mint(alg, [change]));
  while (all.length < count) {
    const alg = pick(algorithms);
    const chosen = Array.from({ length: 1 + Math.floor(next() * 3) }, () => pick(changes));
    const inner = mint(alg, chosen);
    if (next() > 0.1) { push(alg, chosen, inner); continue; }
    const envelope = pick(envelopes);
    const [cty, spoils] = [next() > 0.1 ? "JWT" : undefined, next() > 0.8];
    const text = await wrapped(envelope, inner, keys, cty);
    const outer = spoils ? [pick(changes.filter(([name]) => /^(header|claims|signature): (a bit|cut|padded|unused)/.test(name)))] : [];
    const token = { finish: [] };
    for (const [, change] of outer) change(token);
    push(`JWE ${envelope[0]} ${envelope[1]} ${cty ?? "no cty"} of ${alg}`, [...chosen, ...outer], token.finish.reduce((one, change) => change(one), text));
  }
  return all;
}

// ---- opinions --------------------------------------------------------------------------------------------------------

const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });

function ask(port, token) {
  return new Promise((done, broken) => {
    const request = http.get({ port, host: "127.0.0.1", path: "/second/items/1", agent, headers: { authorization: `Bearer ${token}` } }, (answer) => {
      answer.resume();
      answer.on("end", () => done(answer.statusCode));
    });
    request.on("error", broken);
  });
}

const rules = { issuer, audience, algorithms, clockTolerance: 300, requiredClaims: ["exp"] };

// The JWS inside a token and whether jose takes it.
async function opinion(token, keys) {
  let jws = token;
  try {
    if (token.split(".").length === 5) {
      const key = async ({ alg, kid }) => jose.importJWK(keys.opens.find((jwk) => jwk.kid === kid), alg);
      const { plaintext, protectedHeader } = await jose.compactDecrypt(token, key, {
        keyManagementAlgorithms: envelopes.map(([alg]) => alg), contentEncryptionAlgorithms: ["A128GCM", "A256GCM"],
      });
      if (protectedHeader.cty !== "JWT") return { jws: null, takes: false, why: "no cty" };
      jws = Buffer.from(plaintext).toString();
    }
  } catch (error) {
    return { jws: null, takes: false, why: error.message };
  }
  try {
    const { alg, kid } = jose.decodeProtectedHeader(jws);
    // A key set has no secrets: the one for its algorithm, unless the token names another.
    const secretId = /^HS(256|384|512)$/.test(alg) && keyIds[alg];
    const secret = secretId && (kid === undefined || kid === secretId) && keys.own[secretId];
    await jose.jwtVerify(jws, secret || keys.set, rules).catch(async (error) => {
      if (error.code !== "ERR_JWKS_MULTIPLE_MATCHING_KEYS") throw error;
      for await (const key of error) if (await jose.jwtVerify(jws, key, rules).catch(() => null)) return;
      throw error;
    });
    return { jws, takes: true };
  } catch (error) {
    return { jws, takes: false, why: error.message };
  }
}

async function askAll(dir, port, seed, count) {
  const keys = readKeys(dir);
  const all = await tokens(seed, count, keys);
  const rows = [];
  let at = 0;
  await Promise.all(Array.from({ length: 8 }, async () => {
    while (at < all.length) {
      const one = all[at++];
      const status = await ask(port, one.token);
      rows.push({ ...one, status, ...(await opinion(one.token, keys)) });
    }
  }));
  writeFileSync(`${dir}/asked.jsonl`, rows.map((row) => JSON.stringify(row)).join("\n"));
  const odd = rows.filter(({ status }) => ![200, 400, 401].includes(status));
  const ours = rows.filter(({ status }) => status === 200);
  const onlyOurs = ours.filter(({ takes }) => !takes);
  const good = rows.filter(({ changes }) => changes === 0);
  const mutants = ours.filter(({ changes }) => changes > 0).length;
  console.log(`seed ${seed}: ${rows.length} tokens, ${good.length} of them good, the others with one to four mutations`);
  console.log(`Tollgate takes ${ours.length}, ${mutants} of them mutated; jose takes ${rows.filter(({ takes }) => takes).length}, of ours ${ours.length - onlyOurs.length}`);
  const stricter = rows.filter(({ status, takes, changes }) => status !== 200 && takes && changes === 1).map(({ name }) => name.replace(/^.*?; /, ""));
  console.log(`stricter than jose, by one mutation: ${[...new Set(stricter)].sort().join(" | ")}`);
  for (const { name, why } of onlyOurs.slice(0, 20)) console.log(`only Tollgate takes: ${name} (jose: ${why})`);
  for (const { name, status } of odd.slice(0, 20)) console.log(`neither yes nor no: ${status} ${name}`);
  const badGood = good.filter(({ status, takes }) => status !== 200 || !takes);
  for (const { name, status, why } of badGood) console.log(`good, but: ${name}: ${status}, jose ${why ?? "takes it"}`);
  const telling = mutants * 20 >= rows.length && (rows.length - ours.length) * 20 >= rows.length;
  if (!telling) console.log("too few mutants pass, or too few fail, for this to tell anything");
  process.exitCode = onlyOurs.length || odd.length || badGood.length || !telling ? 1 : 0;
  agent.destroy();
}

const [what, dir, ...rest] = process.argv.slice(2);
if (what === "keys") makeKeys(dir);
else await askAll(dir, ...rest.map(Number));
