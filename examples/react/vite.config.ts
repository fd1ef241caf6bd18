import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  // The site works below any path.
  base: "./",
  plugins: [react()],
});
