// What a bundler does: the packages name folders and files without endings, which Node alone does not take.
import { existsSync, statSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';

registerHooks({
  resolve(specifier, context, next) {
    if (specifier.startsWith('.') && context.conditions.includes('import') && context.parentURL?.includes('/node_modules/')) {
      const plain = new URL(specifier, context.parentURL);
      const whole = [`${plain}.js`, `${plain}/index.js`].find((url) => existsSync(fileURLToPath(url)));
      const there = existsSync(fileURLToPath(plain)) && statSync(fileURLToPath(plain)).isFile();
      return next(there || !whole ? specifier : whole, context);
    }
    return next(specifier, context);
  },
});
