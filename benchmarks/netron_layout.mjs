// Lays a graph out as Netron's grapher does: node netron_layout.mjs DAGRE.mjs GRAPH.json; prints seconds.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [library, file] = process.argv.slice(2);
const { layout } = await import(pathToFileURL(library).href);
const graph = JSON.parse(readFileSync(file, 'utf8'));
const nodes = graph.sizes.map(([width, height], index) => ({ v: `${index}`, width, height, parent: undefined }));
const edges = graph.edges.map(([source, target]) => ({
    v: `${source}`, w: `${target}`, minlen: 1, weight: 1, width: 0, height: 0, labeloffset: 10, labelpos: 'r'
}));
const settings = { nodesep: 20, ranksep: 20 };
if (nodes.length > 3000) {
    settings.ranker = 'longest-path';
}
const start = process.hrtime.bigint();
layout(nodes, edges, settings, {});
const seconds = Number(process.hrtime.bigint() - start) / 1e9;
if (!nodes.every((node) => Number.isFinite(node.x) && Number.isFinite(node.y))) {
    throw new Error('a node has no position');
}
process.stdout.write(`${seconds}\n`);
