import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

const root = import.meta.dirname
// What the bundle depends on; a test compares these hashes with the files.
const SOURCES = ['index.html', 'package.json', 'package-lock.json', 'vite.config.js']

function below(directory) {
  return readdirSync(directory, { withFileTypes: true }).flatMap((one) => {
    const path = join(directory, one.name)
    return one.isDirectory() ? below(path) : [path]
  })
}

function record() {
  return {
    name: 'record-sources',
    generateBundle() {
      const paths = [...SOURCES.map((name) => join(root, name)), ...below(join(root, 'src'))]
      const sources = {}
      for (const path of paths.sort()) {
        const hash = createHash('sha256').update(readFileSync(path)).digest('hex')
        sources[relative(root, path)] = hash
      }
      const text = `${JSON.stringify({ sources }, null, 1)}\n`
      this.emitFile({ type: 'asset', fileName: 'sources.json', source: text })
    },
  }
}

// What the compiler writes for pages that a server has drawn already; ours are drawn here only.
const HYDRATION = 'internal/client/dom/hydration.js'

function clientOnly() {
  return {
    name: 'client-only',
    enforce: 'post',
    transform(code, id) {
      if (id.endsWith(HYDRATION)) {
        const fixed = code
          .replace('export let hydrating = false;', 'export const hydrating = false;')
          .replace('\thydrating = value;\n', '')
        if (fixed.length !== code.length - 20 + 2) this.error(`${HYDRATION} is another one`)
        return { code: fixed, map: null }
      }
      if (!id.endsWith('.svelte')) return null
      const fixed = code
        .replace(/^\s*\$\.(?:reset|next)\([^()]*\);$/gm, '')
        .replace(/,\s*\$\$slots: \{ default: true \}/g, '')
      return { code: fixed, map: null }
    },
  }
}

export default defineConfig({
  root,
  base: './',
  plugins: [svelte({ configFile: false, compilerOptions: { runes: true, discloseVersion: false, cssHash: ({ hash, css }) => `s${hash(css).slice(0, 4)}` } }), clientOnly(), record()],
  build: {
    outDir: '../madmail/web/panel/dist',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: false,
    sourcemap: false,
    license: { fileName: 'licenses.md' },
  },
})
