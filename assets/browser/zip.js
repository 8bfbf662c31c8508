// A ZIP archive of files that are compressed already: they are stored as they are. Less than 4 GB, names in ASCII.
// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});
const VERSION = 20; // 2.0, which knows folders
const DATE = 0x21; // 1 January 1980, the earliest one: when a file was written does not matter

// `files` are [name, Blob or text]. Returns a Blob.
export async function zip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const [name, content] of files) {
    const bytes = new Uint8Array(await new Blob([content]).arrayBuffer());
    const path = new TextEncoder().encode(name);
    // Flags, method (stored), time and date; then checksum and sizes; the length of the name, and of nothing more.
    const about = [[2, 0], [2, 0], [2, 0], [2, DATE], [4, crc32(bytes)], [4, bytes.length], [4, bytes.length], [2, path.length], [2, 0]];
    const header = littleEndian([4, 0x04034b50], [2, VERSION], ...about);
    const attributes = [[2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]; // no comment, the first disk, a file
    directory.push(littleEndian([4, 0x02014b50], [2, VERSION], [2, VERSION], ...about, ...attributes), path);
    parts.push(header, path, bytes);
    offset += header.length + path.length + bytes.length;
  }
  const size = directory.reduce((sum, { length }) => sum + length, 0);
  const count = [2, directory.length / 2];
  const end = littleEndian([4, 0x06054b50], [2, 0], [2, 0], count, count, [4, size], [4, offset], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

// Numbers, each with its size in bytes.
function littleEndian(...fields) {
  return Uint8Array.from(fields.flatMap(([size, number]) => Array.from({ length: size }, (_, i) => number >>> (8 * i))));
}

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
