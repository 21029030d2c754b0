-- A wait looks for signals that name no run by their channel, and for those that name its run by the run: signals for
-- other runs of the channel are not read. Workers of before use `signals_buffered`.
CREATE INDEX signals_unnamed ON signals (channel) WHERE data IS NOT NULL AND run IS NULL;
