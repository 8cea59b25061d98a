# Benchmarks of single layers; `make bench-channel` prints MB/s and ns per message.
$(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(LIB_LIBS) -lm

bench-channel: $(BUILD)/tests/bench/bench_channel
	@$(BUILD)/tests/bench/bench_channel $(ARGS)

-include $(wildcard $(BUILD)/obj/tests/bench/*.d)
.PHONY: bench-channel
