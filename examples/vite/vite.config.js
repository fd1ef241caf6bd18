import { defineConfig } from "vite";

export default defineConfig({
  // The site works below any path.
  base: "./",
});
