/* Conversations in the browser's own database, one record each. Tabs tell each other what changed. */

import {newId} from "./conversation.js";

const NAME = `ternrun ${location.pathname}`; // servers behind one proxy share an origin
const TABLE = "conversations";

const done = request => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** `changed(id)` is called when another tab has saved or removed a conversation; `failed(sentence)` when one is not kept. */
export class Store {
  constructor({changed, failed}) {
    this.failed = failed;
    this.memory = new Map(); // where the database cannot be used
    this.queue = Promise.resolve();
    this.channel = new BroadcastChannel(NAME);
    this.channel.onmessage = event => changed(event.data);
  }

  async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(TABLE, {keyPath: "id"});
      this.database = await done(request);
    } catch {
      this.failed("This browser keeps no data for this page: conversations are lost when it is closed.");
    }
  }

  /** All conversations, the last changed first. */
  async all() {
    const found = this.database ? await done(this.table().getAll()) : [];
    return [...this.memory.values(), ...found].sort((a, b) => b.updated - a.updated);
  }

  async get(id) {
    return this.memory.get(id) ?? (this.database && await done(this.table().get(id)));
  }

  /**
   * Saves a conversation, after what is being saved already. If another tab has changed it in the meantime, this one
   * becomes a conversation of its own.
   */
  save(conversation) {
    this.queue = this.queue.then(() => this.write(conversation));
    return this.queue;
  }

  async write(conversation) {
    conversation.updated = Date.now();
    try {
      if (!this.database) throw new Error("no database");
      const table = this.table("readwrite"), kept = await done(table.get(conversation.id));
      if (kept && kept.revision !== conversation.revision) {
        conversation.id = newId();
        conversation.title += " (copy)";
      }
      const finished = committed(table.transaction);
      conversation.revision += 1;
      table.put(conversation);
      await finished;
      this.memory.delete(conversation.id);
      this.channel.postMessage(conversation.id);
      this.told = "";
    } catch (error) {
      this.memory.set(conversation.id, conversation);
      if (this.database) this.tell(reason(error));
    }
  }

  /** Once: the same will be true of the next saving. */
  tell(sentence) {
    if (sentence !== this.told) this.failed(sentence);
    this.told = sentence;
  }

  async remove(id) {
    await this.queue;
    this.memory.delete(id);
    if (this.database) await done(this.table("readwrite").delete(id));
    this.channel.postMessage(id);
  }

  table(mode = "readonly") {
    return this.database.transaction(TABLE, mode).objectStore(TABLE);
  }
}

const committed = transaction => new Promise((resolve, reject) => {
  transaction.oncomplete = resolve;
  transaction.onabort = () => reject(transaction.error);
});

function reason(error) {
  return error?.name === "QuotaExceededError"
    ? "The browser's storage is full: this conversation is lost when the page is closed. Delete or export some."
    : `This conversation could not be saved: ${error?.message || error}. It is lost when the page is closed.`;
}
