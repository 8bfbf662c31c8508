# Install onnxruntime-web, in the version of runtime.json, beside this file. Needs npm.
set -e
version=$(sed -n 's/.*"version": "\(.*\)".*/\1/p' runtime.json)
mkdir -p onnxruntime
npm pack --silent --pack-destination onnxruntime "onnxruntime-web@$version"
tar -xzf "onnxruntime/onnxruntime-web-$version.tgz" -C onnxruntime --strip-components=2 \
    package/dist/ort.wasm.bundle.min.mjs package/dist/ort-wasm-simd-threaded.wasm
rm "onnxruntime/onnxruntime-web-$version.tgz"
# Node.js comes with npm. Files that are not those of runtime.json do not stay.
node -e '
const { createHash } = require("crypto"), fs = require("fs");
for (const [name, integrity] of Object.entries(JSON.parse(fs.readFileSync("runtime.json")).files)) {
  const digest = createHash("sha384").update(fs.readFileSync(`onnxruntime/${name}`)).digest("base64");
  if (`sha384-${digest}` !== integrity) {
    fs.rmSync("onnxruntime", { recursive: true });
    console.error(`${name} differs from the file whose checksum is in runtime.json.`);
    process.exit(1);
  }
}'
# Compressed ahead: web/middleware.py serves the .gz file.
gzip -9 -f -k -n onnxruntime/ort-wasm-simd-threaded.wasm
