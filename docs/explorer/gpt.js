// Chapter 11's GPT in plain JavaScript: the same sums as lecture_lib/gpt.py, in the same order.
//
// A Reader reads a text from left to right and keeps what it saw: keys, values, attention, the residual stream after
// each block, logits. So one more character costs one row of each product, as with chapter 13's cache.
"use strict";

const EPS = 1e-5; // of LayerNorm, as torch has it

/** The tensors of a safetensors file: name -> Float32Array, rows one after the other. Throws for another format. */
function readSafetensors(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const tensors = {};
  for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (dtype !== "F32") throw new Error(`${name} is ${dtype}; expected F32`);
    tensors[name] = new Float32Array(bytes.slice(8 + length + from, 8 + length + to).buffer);
  }
  return tensors;
}

/** Bytes of a base64 text. */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Several matrices of as many columns, one below the other. */
function stacked(matrices) {
  const all = new Float32Array(matrices.reduce((sum, matrix) => sum + matrix.length, 0));
  matrices.reduce((at, matrix) => (all.set(matrix, at), at + matrix.length), 0);
  return all;
}

/** x (n, C) times the transposed weight (outs, C), plus bias (outs): (n, outs). Four rows of x share a row of weight. */
function linear(x, n, weight, bias, outs) {
  const C = weight.length / outs, y = new Float32Array(n * outs);
  let t = 0;
  for (; t + 4 <= n; t += 4) {
    const a = t * C, b = a + C, c = b + C, d = c + C;
    for (let o = 0; o < outs; o++) {
      const w = o * C;
      let p = bias ? bias[o] : 0, q = p, r = p, s = p;
      for (let i = 0; i < C; i++) {
        const v = weight[w + i];
        p += v * x[a + i]; q += v * x[b + i]; r += v * x[c + i]; s += v * x[d + i];
      }
      y[t * outs + o] = p; y[(t + 1) * outs + o] = q; y[(t + 2) * outs + o] = r; y[(t + 3) * outs + o] = s;
    }
  }
  for (; t < n; t++) {
    for (let o = 0; o < outs; o++) {
      let p = bias ? bias[o] : 0;
      for (let i = 0; i < C; i++) p += weight[o * C + i] * x[t * C + i];
      y[t * outs + o] = p;
    }
  }
  return y;
}

/** Each of the n rows of x with mean 0 and variance 1, then gain and shift. */
function layerNorm(x, n, { weight, bias }) {
  const C = weight.length, y = new Float32Array(n * C);
  for (let at = 0; at < n * C; at += C) {
    let mean = 0, variance = 0;
    for (let i = 0; i < C; i++) mean += x[at + i] / C;
    for (let i = 0; i < C; i++) variance += (x[at + i] - mean) ** 2 / C;
    const scale = 1 / Math.sqrt(variance + EPS);
    for (let i = 0; i < C; i++) y[at + i] = (x[at + i] - mean) * scale * weight[i] + bias[i];
  }
  return y;
}

/** The sum of two tensors of one shape. */
function plus(x, y) {
  return x.map((value, i) => value + y[i]);
}

/** Probabilities from logits; `temperature` below 1 sharpens them, only the `topK` likeliest stay. */
function softmax(logits, temperature = 1, topK = logits.length) {
  const least = Float32Array.from(logits).sort()[logits.length - topK], most = Math.max(...logits);
  const weights = Array.from(logits, (logit) => (logit < least ? 0 : Math.exp((logit - most) / temperature)));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** An index drawn with its probability. */
function draw(probabilities, random = Math.random()) {
  let left = random;
  const drawn = probabilities.findIndex((p) => (left -= p) < 0);
  return drawn >= 0 ? drawn : probabilities.findLastIndex((p) => p > 0); // the sum is 1 only up to rounding
}

/** The model: its sizes, its characters, its weights by block. */
class Gpt {
  constructor(card, bytes) {
    const tensors = readSafetensors(bytes);
    const layer = (name) => ({ weight: tensors[`${name}.weight`], bias: tensors[`${name}.bias`] });
    const heads = [...Array(card.model.n_head).keys()];
    Object.assign(this, card.model);
    this.characters = Array.from(card.characters);
    this.id = new Map(this.characters.map((character, id) => [character, id]));
    this.tokens = layer("token_embedding_table").weight;
    this.positions = layer("position_embedding_table").weight;
    this.blocks = [...Array(this.n_layer).keys()].map((i) => {
      const all = (part) => stacked(heads.map((h) => layer(`body.${i}.sa.0.heads.${h}.${part}`).weight));
      return {
        ln1: layer(`body.${i}.ln1`), query: all("query"), key: all("key"), value: all("value"),
        proj: layer(`body.${i}.sa.0.proj`), ln2: layer(`body.${i}.ln2`),
        widen: layer(`body.${i}.ffwd.0.net.0`), narrow: layer(`body.${i}.ffwd.0.net.2`),
      };
    });
    this.norm = layer(`body.${this.n_layer}`);
    this.head = layer("lm_head");
  }

  /** The ids of a text, and the characters in it that the model doesn't know, each with its place, from 0. */
  encode(text) {
    const unknown = [], ids = [];
    Array.from(text).forEach((character, place) => {
      if (this.id.has(character)) ids.push(this.id.get(character));
      else unknown.push({ character, place });
    });
    return { ids, unknown };
  }

  decode(ids) {
    return ids.map((id) => this.characters[id]).join("");
  }

  /** Logits (n, vocab_size) from the residual stream (n, C): the final norm, then the output layer. */
  logits(x, n) {
    return linear(layerNorm(x, n, this.norm), n, this.head.weight, this.head.bias, this.vocab_size);
  }
}

/** What the model sees in a text of up to block_size characters, kept for each position. */
class Reader {
  constructor(gpt) {
    const { block_size: T, n_embd: C, n_head, n_layer, vocab_size } = gpt;
    const room = (count, size) => [...Array(count)].map(() => new Float32Array(size));
    this.gpt = gpt;
    this.ids = [];
    this.keys = room(n_layer, T * C);
    this.values = room(n_layer, T * C);
    this.attention = room(n_layer, n_head * T * T); // [layer][(head, t, s)]: how much t listens to s
    this.streams = room(n_layer + 1, T * C); // after the embedding and after each block
    this.logits = new Float32Array(T * vocab_size);
  }

  /** Read `ids`, at most block_size: what they have in common with those read before isn't read again. */
  read(ids) {
    const { block_size } = this.gpt;
    if (ids.length > block_size) throw new Error(`${ids.length} ids; expected at most ${block_size}`);
    let same = 0;
    while (same < ids.length && ids[same] === this.ids[same]) same++;
    this.ids = ids.slice(0, same);
    if (same < ids.length) this.append(ids.slice(same));
  }

  append(ids) {
    const { gpt } = this, { n_embd: C, vocab_size } = gpt, from = this.ids.length, n = ids.length;
    let x = new Float32Array(n * C);
    ids.forEach((id, t) => {
      for (let i = 0; i < C; i++) x[t * C + i] = gpt.tokens[id * C + i] + gpt.positions[(from + t) * C + i];
    });
    this.streams[0].set(x, from * C);
    gpt.blocks.forEach((block, layer) => {
      const { proj, widen, narrow } = block;
      x = plus(x, linear(this.attend(block, layer, layerNorm(x, n, block.ln1), n), n, proj.weight, proj.bias, C));
      const wide = linear(layerNorm(x, n, block.ln2), n, widen.weight, widen.bias, 4 * C);
      x = plus(x, linear(wide.map((value) => Math.max(0, value)), n, narrow.weight, narrow.bias, C));
      this.streams[layer + 1].set(x, from * C);
    });
    this.logits.set(gpt.logits(x, n), from * vocab_size);
    this.ids = this.ids.concat(ids);
  }

  /** The heads' outputs (n, C), side by side, for n new rows of x; keeps their keys, values and attention. */
  attend(block, layer, x, n) {
    const { n_embd: C, n_head, block_size: T } = this.gpt, from = this.ids.length, hs = C / n_head;
    const keys = this.keys[layer], values = this.values[layer], wei = this.attention[layer];
    const q = linear(x, n, block.query, null, C), out = new Float32Array(n * C);
    keys.set(linear(x, n, block.key, null, C), from * C);
    values.set(linear(x, n, block.value, null, C), from * C);
    for (let h = 0; h < n_head; h++) {
      for (let t = 0; t < n; t++) {
        const row = (h * T + from + t) * T, last = from + t, mine = t * C + h * hs;
        let most = -Infinity, sum = 0;
        for (let s = 0; s <= last; s++) {
          let score = 0;
          for (let i = 0; i < hs; i++) score += q[mine + i] * keys[s * C + h * hs + i];
          wei[row + s] = score / Math.sqrt(hs);
          most = Math.max(most, wei[row + s]);
        }
        for (let s = 0; s <= last; s++) sum += wei[row + s] = Math.exp(wei[row + s] - most);
        for (let s = 0; s <= last; s++) {
          wei[row + s] /= sum;
          for (let i = 0; i < hs; i++) out[mine + i] += wei[row + s] * values[s * C + h * hs + i];
        }
        wei.fill(0, row + last + 1, row + T); // left over from a longer text
      }
    }
    return out;
  }

  /** The logits of what follows position t. */
  logitsAt(t) {
    const V = this.gpt.vocab_size;
    return this.logits.subarray(t * V, (t + 1) * V);
  }

  /** How much position t listens to position s, in one head of one layer: from 0 to 1. */
  listens(layer, head, t, s) {
    const T = this.gpt.block_size;
    return s > t ? 0 : this.attention[layer][(head * T + t) * T + s];
  }

  /** The probabilities of what follows position t, if the model stopped after each block: n_layer + 1 rows. */
  lens(t) {
    const C = this.gpt.n_embd;
    return this.streams.map((x) => softmax(this.gpt.logits(x.subarray(t * C, (t + 1) * C), 1)));
  }
}

/** Where the model's window begins in a text of n characters: a full one forgets its first half at once. */
function windowStart(n, block_size) {
  const half = block_size / 2;
  return n <= block_size ? 0 : half * Math.ceil((n - block_size) / half);
}

/** The losses of all characters but the first, in nats, as lecture_lib/evaluation.py's strided_loss has them: windows
 *  overlap by half, so that each character has at least half a window before it, once there is that much. `pause(n)` is
 *  awaited after each window, with the number of losses so far. */
async function surprises(gpt, ids, pause) {
  const reader = new Reader(gpt), losses = [], size = gpt.block_size, last = ids.length - 1;
  while (losses.length < last) {
    const end = Math.min(last, losses.length ? losses.length + size / 2 : size), start = Math.max(0, end - size);
    reader.read(ids.slice(start, end));
    for (let t = losses.length; t < end; t++) losses.push(-Math.log(softmax(reader.logitsAt(t - start))[ids[t + 1]]));
    await pause(losses.length);
  }
  return losses;
}
