// Asks web/early.js about a database: a JSON object comes in on stdin, and the answers go out as a JSON list of texts and nulls.

import { Early } from "../../web/early.js";
import { connectTo } from "./sqlite_in_node.js";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { database, keys, schema, now, requests } = JSON.parse(Buffer.concat(chunks).toString());

const connection = connectTo(new Uint8Array(Buffer.from(database, "base64")));
const early = new Early(connection, keys.map((key) => new Uint8Array(Buffer.from(key, "base64"))), schema, () => now);
const answers = [];
for (const request of requests) answers.push(await early.answer(request));
connection.close();
process.stdout.write(JSON.stringify(answers));
